package config

import (
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	const base = `
services:
  - name: a
    endpoints: {static: [{address: "h:1"}, {address: "h:2"}]}
    policy: {timeout: 3s}
    methods: [{method: /a.A/Slow, policy: {timeout: 9s}}]
  - name: b
    endpoints: {static: [{address: "h:3"}]}
`
	for _, test := range []struct{ name, text, want string }{
		{"nothing", base, "nothing changed"},
		{"another spelling", "# the same\ndefaults: {}\n" + base, "nothing changed"},
		{"an address of the agent's", "api: {address: \"127.0.0.1:9\"}\n" + base, "only a restart changes api.address: 127.0.0.1:7601 → 127.0.0.1:9"},
		{"telemetry and unmatched", "telemetry: {prometheus: false}\nunmatched: {mode: DIAL}\n" + base, "unmatched calls; telemetry"},
		{"what calls are admitted by", strings.Replace(base, "timeout: 3s", "timeout: 3s, rate_limit: {per_second: 5}", 1), "a (policy)"},
		{"how endpoints are chosen", strings.Replace(base, "timeout: 3s", "timeout: 3s, load_balancing: {subset: 5}", 1), "a (policy)"},
		{"a zone that nobody goes by", "zone: a\n" + base, "nothing changed"},
		{"tasks come", base + "tasks: {}\n", "tasks; only a restart changes tasks: the block comes or goes"},
		{"leave for faults", "chaos: {enabled: true}\n" + base, "chaos"},
		{"the defaults reach those that inherit them", "defaults: {stream: {idle_timeout: 1m}}\n" + base, "a (policy); b (policy); unmatched calls"},
		{"services come and go", `
services:
  - name: c
    endpoints: {static: [{address: "h:4"}]}
  - name: b
    endpoints: {static: [{address: "h:3"}]}
`, "added c; removed a"},
		{"a service in every way", `
services:
  - name: a
    match: {authorities: [x]}
    endpoints: {static: [{address: "h:5"}, {address: "h:2", priority: 1}]}
    policy: {timeout: 4s}
    methods: [{method: /a.A/Fast, policy: {timeout: 1s}}]
  - name: b
    endpoints: {static: [{address: "h:3"}]}
`, "a (match, policy, method /a.A/Fast, method /a.A/Slow, +h:5, -h:1, ±h:2)"},
		{"a method's policy", `
services:
  - name: a
    endpoints: {static: [{address: "h:1"}, {address: "h:2"}]}
    policy: {timeout: 3s}
    methods: [{method: /a.A/Slow, policy: {timeout: 8s}}]
  - name: b
    endpoints: {static: [{address: "h:3"}]}
`, "a (policy)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes := Diff(parse(t, base), parse(t, test.text))

			if got := changes.String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if changes.None() != (test.want == "nothing changed") {
				t.Errorf("None is %v", changes.None())
			}
		})
	}
}

func TestDiffOfTasks(t *testing.T) {
	const base = "tasks:\n  kinds: [{name: reviews}]\n"
	for _, test := range []struct{ name, text, want string }{
		{"nothing", "# the same\n" + base, "nothing changed"},
		{"a queue, a kind and a webhook's secret", "tasks:\n  queues: [{name: slow}]\n  kinds: [{name: reviews}, {name: letters}]\n" +
			"  webhook_secrets: [{name: shop, files: [a.secret]}]\n", "tasks"},
		{"the keys", base + "  store: {encryption: {keys: [{id: a, file: a.key}]}}\n", "tasks"},
		{"the store", base + "  store: {sqlite: {path: other.db}}\n", "tasks; only a restart changes tasks.store, but for its encryption"},
		{"a kind goes that workers may hold", "tasks: {}\n", `tasks; only a restart changes tasks.kinds: "reviews" goes`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Diff(parse(t, base), parse(t, test.text)).String(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}
