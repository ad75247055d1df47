package policy

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
)

func TestPickersOutliveUpdatesThatLeaveThemAlone(t *testing.T) {
	// Given a service that goes round its endpoints, with an override,
	turns := Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}
	s := newTestService(turns, "a:1", "b:1")
	where := func() string { e, _ := one(t, s, start, Result{}); return e }
	if got := where(); got != "a:1" {
		t.Fatal(got)
	}
	// when something else changes, then the turn goes on;
	turns.PerTryTimeout = time.Second
	s.Update(Settings{Policy: turns, Methods: map[string]Policy{hello: turns}})
	if got := where(); got != "b:1" {
		t.Errorf("%s out of turn", got)
	}
	// one picker serves both, since they ask alike;
	g := s.current.Load()
	if g.rules[hello].picker != g.service.picker {
		t.Error("two pickers of the same kind")
	}
	// and when the balancing changes there is another.
	other := turns
	other.LoadBalancing.Policy = balancer.Maglev
	s.Update(Settings{Policy: turns, Methods: map[string]Policy{hello: other}})
	if g := s.current.Load(); g.rules[hello].picker.Options().Policy != balancer.Maglev || g.service.picker.Options().Policy != balancer.RoundRobin {
		t.Error("not what was asked for")
	}
}

func TestMembersAreThoseThatAnyMethodUses(t *testing.T) {
	subset := Policy{LoadBalancing: balancer.Options{Subset: 1, Identity: 1}}
	s := newTestService(subset, "a:1", "b:1", "c:1", "d:1")
	if n := len(s.Members()); n != 1 {
		t.Errorf("%d members", n)
	}
	s.Update(Settings{Policy: subset, Methods: map[string]Policy{hello: {}}})
	if n := len(s.Members()); n != 4 {
		t.Errorf("%d members with a method that uses all", n)
	}
}

func TestReachTellsOfEveryPolicysSubset(t *testing.T) {
	// Given a service that uses all endpoints, and a method of it that uses one,
	s := newTestService(Policy{}, "a:1", "b:1", "c:1", "d:1")
	s.Update(Settings{Methods: map[string]Policy{hello: {LoadBalancing: balancer.Options{Subset: 1, Identity: 1}}}})
	before := s.Reach()
	// when a member of the method's subset falls ill, then it is told.
	for _, e := range s.Endpoints().All() {
		e.SetHealthy(false, "status 500", start)
	}
	if s.Reach() == before {
		t.Error("not told")
	}
}

func TestBalancingSaysWhenItPanics(t *testing.T) {
	s := newTestService(Policy{LoadBalancing: balancer.Options{PanicThreshold: 0.5}}, "a:1", "b:1", "c:1")
	if s.Balancing().Panicking {
		t.Error("all are fit")
	}
	s.Endpoints().Find("a:1").SetHealthy(false, "status 500", start)
	s.Endpoints().Find("b:1").SetHealthy(false, "status 500", start)
	if b := s.Balancing(); !b.Panicking || b.Priorities[0].Fit != 1 {
		t.Errorf("%+v", b)
	}
}

func TestAttemptsTeachTheBalancer(t *testing.T) {
	// Given a balancer by latency and two attempts of 20 ms, one of them a
	// stream's,
	s := newTestService(Policy{LoadBalancing: balancer.Options{Policy: balancer.PeakEWMA}}, "a:1")
	for _, stream := range []bool{true, false} {
		var c Call
		var a Attempt
		if r := begin(&c, s.Method(hello), start, noTime, 1); r != nil {
			t.Fatal(r)
		}
		if r := c.Pick(start, 1, &a); r != nil {
			t.Fatal(r)
		}
		if stream {
			c.MarkStream()
			c.method.stream.Store(false)
		}
		e, end := a.Endpoint, start+20*time.Millisecond
		c.Settle(&a, end, Result{}, 1)
		c.End(end, Result{}, 1)
		// then only the other one counts.
		if got := e.Latency(end).Round(time.Millisecond); stream && got != 0 || !stream && got != 20*time.Millisecond {
			t.Errorf("stream %v: %v", stream, got)
		}
	}
}
