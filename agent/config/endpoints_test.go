package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrigger-rpc/outrigger/balancer"
)

func TestSourcesOfEndpoints(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want Discovery
	}{
		"dns":         {"{dns: {host: greeter.default.svc, port: 50051}}", Discovery{DNS: &DNS{Host: "greeter.default.svc", Port: 50051, Refresh: 5 * time.Second}}},
		"dns srv":     {"{dns: {srv: _grpc._tcp.greeter, refresh: 1m, servers: [\"127.0.0.1:5353\"]}}", Discovery{DNS: &DNS{SRV: "_grpc._tcp.greeter", Refresh: time.Minute, Servers: []string{"127.0.0.1:5353"}}}},
		"dns address": {"{dns: {host: \"fd00::1\", port: 1}}", Discovery{DNS: &DNS{Host: "fd00::1", Port: 1, Refresh: 5 * time.Second}}},
		"file":        {"{file: {path: e.yaml}}", Discovery{File: "folder/e.yaml"}},
		"far file":    {"{file: {path: /run/e.yaml}}", Discovery{File: "/run/e.yaml"}},
		"registered":  {"{registered: {}}", Discovery{Registered: &Registered{5 * time.Minute, 1000}}},
		"leases":      {"{registered: {max_lease: 10s, max_endpoints: 3}}", Discovery{Registered: &Registered{10 * time.Second, 3}}},
		"kubernetes":  {"{kubernetes: {service: greeter}}", Discovery{Kubernetes: &Kubernetes{Service: "greeter"}}},
		"kubernetes with all": {"{kubernetes: {namespace: shop, service: greeter, port: grpc, weights: true, kubeconfig: k.conf}}",
			Discovery{Kubernetes: &Kubernetes{Namespace: "shop", Service: "greeter", Port: "grpc", Weights: true, Kubeconfig: "folder/k.conf"}}},
	} {
		c, err := Parse("folder/c.yaml", []byte("services:\n  - {name: greeter, endpoints: "+test.text+"}\n"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.Services[0].Discovery; !reflect.DeepEqual(got, test.want) || len(c.Services[0].Endpoints) > 0 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestCertificatesAreHeldAgainstTheNameThatWasAsked(t *testing.T) {
	for source, want := range map[string]string{
		"{dns: {host: greeter.default.svc., port: 50051}}":     "greeter.default.svc",
		"{dns: {srv: _grpc._tcp.greeter.default.svc}}":         "greeter.default.svc",
		"{static: [{address: \"greeter.default.svc:50051\"}]}": "",
	} {
		c := parse(t, "services:\n  - {name: greeter, tls: {}, endpoints: "+source+"}\n")
		if got := c.Services[0].TLS.ServerName; got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
	c := parse(t, "services:\n  - {name: greeter, tls: {server_name: other}, endpoints: {dns: {host: greeter, port: 1}}}\n")
	if got := c.Services[0].TLS.ServerName; got != "other" {
		t.Errorf("written: %q", got)
	}
}

func TestAFileOfEndpoints(t *testing.T) {
	want := []balancer.Spec{{Address: "127.0.0.1:1", Weight: 1}, {Address: "127.0.0.2:1", Weight: 3, Zone: "b", Priority: 1}}
	for name, text := range map[string]string{
		"yaml": "# ours\n- address: 127.0.0.1:1\n- {address: \"127.0.0.2:1\", weight: 3, zone: b, priority: 1}\n",
		"json": `[{"address": "127.0.0.1:1"}, {"address": "127.0.0.2:1", "weight": 3, "zone": "b", "priority": 1}]`,
	} {
		path := filepath.Join(t.TempDir(), "e.yaml")
		write(t, path, text)
		got, err := Default().ReadEndpoints(path)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := Default().parseEndpoints("e.yaml", []byte("[]")); err != nil || len(got) != 0 {
		t.Errorf("none: %+v, %v", got, err)
	}
}

func TestWhatIsWrongWithAFileOfEndpointsIsToldWithItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   `e.yaml:1:1: is empty; want a list such as [{address: "127.0.0.1:50051"}], or [] for none`,
		"- address: 127.0.0.1:1\n- {addr: x": `e.yaml:1:1: not YAML: did not find expected ',' or '}'`,
		"static: []":                         "e.yaml:1:1: want a list, got fields",
		"- {address: \"127.0.0.1:1\"}\n- {prioritys: 1}\n": "e.yaml:2:4: [1].prioritys: unknown field; did you mean priority?",
		"- {address: \"127.0.0.1:1\", weight: 0}\n":        "e.yaml:1:36: [0].weight: 0 must be greater than or equal to 1 and less than or equal to 1000000",
		"- {weight: 3}\n":  `e.yaml:1:3: [0].address: "": want host:port or unix:PATH`,
		"- {address: h}\n": `e.yaml:1:13: [0].address: "h": want host:port or unix:PATH`,
		"- {address: \"h:1\"}\n- {address: \"H:1\"}\n": "e.yaml:2:13: [1].address: H:1 is [0] already; want each once, with a weight for a bigger share",
		"- {address: \"127.0.0.1:7600\"}\n":            "e.yaml:1:13: [0].address: 127.0.0.1:7600 is the agent's own egress.address: calls would go round in circles; want another address",
		"- &a {address: \"h:1\"}\n- *a\n":              "e.yaml:2:3: [1]: aliases (*a) are not supported; write it out, or use defaults: every service inherits them",
	} {
		_, err := Default().parseEndpoints("e.yaml", []byte(text))
		if err == nil || err.Error() != want {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
	if _, err := Default().ReadEndpoints(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// FuzzReadEndpoints: no text makes it panic, every issue lies inside the text,
// and what is accepted can be called.
func FuzzReadEndpoints(f *testing.F) {
	for _, text := range []string{"[]", "- address: 127.0.0.1:1\n- {address: \"127.0.0.2:1\", weight: 3, zone: b, priority: 1}\n", `[{"address": "h:1"}]`, "- &a {address: \"h:1\"}\n- *a\n", "- {address: \"h:1\n"} {
		f.Add([]byte(text))
	}
	c := Default()
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		specs, err := c.parseEndpoints("e.yaml", data)
		var broken *Error
		switch {
		case err == nil:
			seen := make(map[string]bool)
			for _, s := range specs {
				if a, wrong := parseAddress(s.Address); wrong != "" || a.notDialable() != "" || s.Weight == 0 || seen[s.Address] {
					t.Fatalf("accepted %+v", s)
				}
				seen[s.Address] = true
			}
		case errors.As(err, &broken):
			lines := strings.Split(string(data), "\n")
			for _, issue := range broken.Issues {
				if issue.Line < 1 || issue.Line > len(lines) || issue.Column < 1 || issue.Column > utf8.RuneCountInString(lines[issue.Line-1])+1 || issue.Message == "" {
					t.Fatalf("%+v lies outside the text", issue)
				}
			}
		default:
			t.Fatalf("%T: %v", err, err)
		}
	})
}
