package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outrigger-rpc/outrigger/policy"
)

// observer says, of a policy block that takes a mode, how one tells what it
// decided of a call: by the reasons of its refusals, or by what the service
// counts under ENFORCE; and by what it counts under OBSERVE.
type observer struct {
	block       string
	reasons     []policy.Reason
	does, would string
}

var observing = []observer{
	{block: "circuit_breaker", reasons: []policy.Reason{policy.BreakerOpen}, would: "BREAKER_OPEN"},
	{block: "concurrency", reasons: []policy.Reason{policy.ConcurrencyLimit, policy.QueueTimeout}, would: "CONCURRENCY_LIMIT"},
	{block: "rate_limit", reasons: []policy.Reason{policy.RateLimit}, would: "RATE_LIMIT"},
	{block: "client_throttle", reasons: []policy.Reason{policy.Throttled}, would: "THROTTLED"},
	{block: "retry", does: "retry", would: "would_retry"},
	{block: "hedge", does: "hedge", would: "would_hedge"},
	{block: "fallback", does: "fallback", would: "would_fall_back"},
	{block: "fault", reasons: []policy.Reason{policy.FaultInjected}, does: "fault", would: "would_inject"},
}

// acted reports whether the block did something to a call where it enforces; or
// noted it, where the row itself has it observe for a while.
func (o observer) acted(c *coreCall) bool {
	switch {
	case slices.Contains(o.reasons, c.refused), c.counted[o.would] > 0:
		return true
	case o.block == "concurrency":
		// Its time was over before its turn came: that has another name, and is
		// the same wait in vain.
		return c.policy.Attempts() == 0 && (c.refused == policy.Deadline || c.refused == policy.Timeout) && c.door.service.Limiter() != nil
	case o.does == "retry":
		return len(c.again) > 0
	}
	return o.does != "" && c.sum(o.does) > 0
}

// TestObserveDecidesAsEnforce plays each row that enforces a block once more
// with that block in OBSERVE: it decides the same of every call, its breakers
// go through the same states, and no call feels it.
func TestObserveDecidesAsEnforce(t *testing.T) {
	compared := 0
	for _, r := range rows(t) {
		for _, o := range observing {
			watched, changed := r.observed(t, o.block)
			if !changed || !r.isFor(core) {
				continue
			}
			compared++
			t.Run(r.file+"/"+r.Name+"/"+o.block, func(t *testing.T) {
				enforced, states := playOn(t, r)
				seen, seenStates := playOn(t, watched)
				for i, e := range enforced.calls {
					c := seen.calls[i]
					acted, noted := o.acted(e), c.sum(o.would) > 0
					if o.block == "circuit_breaker" && !acted {
						// A repeat that OBSERVE notes is one that ENFORCE does not
						// even send: it refuses nobody by that.
						noted = c.counted[o.would] > 0
					}
					if noted != acted {
						t.Errorf("%s: ENFORCE acts: %v; OBSERVE would have: %v (%s, and %s)", e.name, acted, noted, e.outcome, c.outcome)
					}
					if slices.Contains(o.reasons, c.refused) || o.does != "" && o.does != "retry" && c.sum(o.does) > 0 || o.does == "retry" && len(c.again) > 0 {
						t.Errorf("%s: OBSERVE acted: %s", c.name, c.outcome)
					}
					if acted && len(o.reasons) > 0 && c.refused == policy.ReasonNone && !slices.Contains(fates(r, c), c.outcome) {
						t.Errorf("%s: %s; what its endpoint answered is %v", c.name, c.outcome, fates(r, c))
					}
				}
				if o.block == "circuit_breaker" && !slices.Equal(states, seenStates) {
					t.Errorf("the breakers go through\n%s\nand under OBSERVE through\n%s", strings.Join(states, "\n"), strings.Join(seenStates, "\n"))
				}
			})
		}
	}
	if compared < leastRows/2 {
		t.Errorf("%d rows were compared", compared)
	}
}

// fates are the ways in which a call may end that no policy refuses: as the
// script says, or well, or by its caller.
func fates(r *row, c *coreCall) []string {
	all := []string{returned(policy.OK), canceled}
	for _, s := range r.Script {
		if slices.Contains(s.End, c.name) {
			all = append(all, returned(s.ending().Code))
		}
	}
	return all
}

// playOn plays a row in the core as far as its script goes: who did not get
// where the script has him is left alone, and all that is left then is
// answered. It returns the states of the breakers after each step, too.
func playOn(t *testing.T, r *row) (*coreDoor, []string) {
	t.Helper()
	d := newCoreDoor(r, 1)
	d.audits = true
	var states []string
	for i := range r.Script {
		s := &r.Script[i]
		if err := d.advance(s.At); err != nil {
			t.Fatal(err)
		}
		for _, name := range s.Call {
			_ = d.arrive(name, s.With) // it never fails
		}
		for _, do := range []struct {
			calls names
			what  func(string) error
		}{
			{s.End, func(name string) error { return d.answer(name, s.how) }},
			{s.Head, func(name string) error { return d.head(name, s.how) }},
			{s.Say, d.say}, {s.Cancel, d.cancel},
		} {
			for _, name := range do.calls {
				_ = do.what(name) // there may be no such attempt
			}
		}
		if !s.Policy.IsZero() {
			_ = d.reload(r.policies[i])
		}
		if s.Drain == "all" {
			for _, e := range d.service.Endpoints().All() {
				e.SetDraining(true)
			}
		}
		states = append(states, breakersOf(d))
	}
	end := r.Script[len(r.Script)-1].At
	for range 100 {
		left := false
		for _, c := range d.calls {
			for c.outcome == "" && len(c.flying) > 0 {
				left = true
				_ = d.answer(c.name, how{}) // one is under way
			}
			left = left || c.outcome == ""
		}
		if !left {
			break
		}
		end += time.Second
		if err := d.advance(end); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	return d, states
}

// breakersOf are the states of the breakers that act or watch.
func breakersOf(d *coreDoor) string {
	states := make(map[string]string)
	for _, b := range d.service.Breakers() {
		states[fmt.Sprint(b.Key, b.Override)] = b.Breaker.Snapshot(d.clock).State.String()
	}
	var all []string
	for _, key := range slices.Sorted(maps.Keys(states)) {
		all = append(all, key+" "+states[key])
	}
	return strings.Join(all, ", ")
}

// observed returns the row with one block in OBSERVE wherever it is enforced;
// false: it nowhere is.
func (r *row) observed(t *testing.T, block string) (*row, bool) {
	t.Helper()
	next := *r
	changed := false
	watch := func(n yaml.Node) yaml.Node {
		if n.IsZero() {
			return n
		}
		var p map[string]any
		if err := n.Decode(&p); err != nil {
			t.Fatal(err)
		}
		b, _ := p[block].(map[string]any)
		if b == nil || b["mode"] != nil {
			return n
		}
		b["mode"] = "OBSERVE"
		changed = true
		var out yaml.Node
		if err := out.Encode(p); err != nil {
			t.Fatal(err)
		}
		return out
	}
	next.Policy = watch(r.Policy)
	next.Methods = make(map[string]yaml.Node)
	for method, p := range r.Methods {
		next.Methods[method] = watch(p)
	}
	next.Script = slices.Clone(r.Script)
	for i := range next.Script {
		if next.Script[i].Drain != "" && next.Script[i].Drain != "all" {
			return nil, false // letters are given as a row is compared
		}
		next.Script[i].Policy = watch(next.Script[i].Policy)
	}
	if !changed {
		return nil, false
	}
	if err := next.check(); err != nil {
		t.Fatalf("%s/%s with %s in OBSERVE: %v", r.file, r.Name, block, err)
	}
	return &next, true
}
