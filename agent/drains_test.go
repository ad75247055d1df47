package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func (r *running) drainEndpoint(address string) {
	r.t.Helper()
	if _, err := r.control().DrainEndpoint(r.t.Context(), &outriggerv1.DrainEndpointRequest{Address: address}); err != nil {
		r.t.Fatal(err)
	}
}

// TestADrainOutlivesReloadsAndRestarts: an endpoint that an operator drained
// gets no call after a reload, after it left and came back, and after a restart
// with a state folder; it does once the operator takes that back.
func TestADrainOutlivesReloadsAndRestarts(t *testing.T) {
	stays, drained := startUpstream(t), startUpstream(t)
	state := fmt.Sprintf("state: {dir: %q}\n", t.TempDir()+"/state")
	both, one := state+configOf("", stays, drained), state+configOf("", stays)
	a := startAgent(t, both)
	a.drainEndpoint(drained.address)
	gets := func(a *running, when string) {
		t.Helper()
		app, before := a.app(), drained.calls.Load()
		for range 20 {
			if err := call(app); err != nil {
				t.Fatal(err)
			}
		}
		if e := a.endpoint(drained.address); e.GetState() != outriggerv1.Endpoint_DRAINING || drained.calls.Load() != before {
			t.Errorf("%s: %v, %d calls", when, e.GetState(), drained.calls.Load()-before)
		}
	}
	gets(a, "drained")
	a.rewrite(both + "defaults: {timeout: 9s}\n")
	gets(a, "after a reload")
	a.rewrite(one)
	a.rewrite(both)
	gets(a, "after it left and came back")
	a.end()

	b := startAgent(t, both)
	gets(b, "after a restart")
	if _, err := b.control().UndrainEndpoint(t.Context(), &outriggerv1.UndrainEndpointRequest{Address: drained.address}); err != nil {
		t.Fatal(err)
	}
	b.end()

	c := startAgent(t, both)
	if e := c.endpoint(drained.address); e.GetState() != outriggerv1.Endpoint_READY {
		t.Errorf("taken back: %v", e)
	}
}

func TestAListOfDrainsThatIsBrokenIsPutAside(t *testing.T) {
	for name, text := range map[string]string{
		"half":              `{"version": 1, "drained": [{"service": "a"`,
		"empty":             "",
		"another version":   `{"version": 2, "drained": []}`,
		"an unknown field":  `{"version": 1, "drained": [], "more": 1}`,
		"without a service": `{"version": 1, "drained": [{"address": "h:1"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, drainsFile)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var log strings.Builder

			d, err := openDrains(dir, slog.New(slog.NewTextHandler(&log, nil)))

			if err != nil || len(d.known) != 0 || !strings.Contains(log.String(), "put aside") {
				t.Fatalf("%v, %v, %s", d, err, log.String())
			}
			if kept, err := os.ReadFile(path + ".broken"); err != nil || string(kept) != text {
				t.Errorf("aside: %q, %v", kept, err)
			}
		})
	}
}

func TestTheListOfDrainsIsReplacedWhole(t *testing.T) {
	dir := t.TempDir()
	d, err := openDrains(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	d.set("b", "h:2", true)
	d.set("a", "h:1", true)
	d.set("b", "h:2", true)
	d.set("a", "h:3", true)
	d.set("a", "h:3", false)

	again, err := openDrains(dir, slog.New(slog.DiscardHandler))
	if err != nil || len(again.known) != 2 {
		t.Fatalf("%v, %v", again, err)
	}
	e := balancer.NewEndpoint(balancer.Spec{Address: "h:1"})
	again.apply("b", []*balancer.Endpoint{e})
	if e.Drained() {
		t.Error("drained in another service")
	}
	again.apply("a", []*balancer.Endpoint{e})
	if !e.Drained() {
		t.Error("not drained")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}
