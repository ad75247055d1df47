package api

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/outrigger-rpc/outrigger/breaker"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestABreakerIsNamedAfterWhatItGuards(t *testing.T) {
	// Given a service a scope, and one whose methods differ,
	h := newHouse(t)
	h.call(h.add("alpha", reference(policy.ScopeService)), sayHello, 1, policy.OK)
	h.call(h.add("beta", reference(policy.ScopeMethod)), sayHello, 1, policy.OK)
	h.call(h.add("gamma", reference(policy.ScopeEndpoint)), sayHello, 2, policy.OK)
	other := reference(policy.ScopeService) // asked for in the same words it would be the service's
	other.Breaker.Options.ConsecutiveFailures = 7
	delta := h.addWith("delta", policy.Settings{Policy: reference(policy.ScopeService), Methods: map[string]policy.Policy{
		sayBye:     other,
		"/other./": reference(policy.ScopeEndpoint),
	}})
	for _, method := range []string{sayHello, sayBye, "/other./Do"} {
		h.call(delta, method, 1, policy.OK)
	}
	// when they are listed,
	list := must[*outriggerv1.ListBreakersResponse](t)(h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{}))
	// then each has a name of its own, in order.
	var names []string
	for _, b := range list.GetBreakers() {
		names = append(names, b.GetName())
	}
	want := []string{
		"alpha",
		"beta/helloworld.Greeter/SayHello",
		"delta", "delta/helloworld.Greeter/SayBye", "delta/other./@127.0.0.1:50051",
		"gamma@127.0.0.1:50051", "gamma@127.0.0.1:50052",
	}
	// beta's methods past the bound would share one entry, which is there from
	// the start.
	names = slices.DeleteFunc(names, func(n string) bool { return n == "beta"+policy.OtherMethods })
	if !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}

func TestAnOpenBreakerIsExplained(t *testing.T) {
	// Given a service that failed five times in a row, and was called since,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	h.call(greeter, sayHello, 5, policy.Unavailable)
	h.call(greeter, sayHello, 3, policy.OK)
	// when its breaker is asked for,
	b := must[*outriggerv1.GetBreakerResponse](t)(h.breakers().GetBreaker(h.context(), &outriggerv1.GetBreakerRequest{Name: "greeter"})).GetBreaker()
	// then it says what it does, why, until when, and what it cost.
	if b.GetState() != outriggerv1.Breaker_OPEN || b.GetMode() != outriggerv1.Breaker_ENFORCE || b.GetReason() != "5 failures in a row" {
		t.Errorf("%v", b)
	}
	if b.GetRefused() != 3 || b.GetTransitions() != 1 || b.GetForced() {
		t.Errorf("%v", b)
	}
	if open := b.GetOpenUntil().AsTime().Sub(b.GetSince().AsTime()); open < 27*time.Second || open > 33*time.Second {
		t.Errorf("open for %v", open)
	}
}

func TestAnOperatorMovesABreaker(t *testing.T) {
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	// When it is opened, then calls are refused until it is closed.
	opened := must[*outriggerv1.OpenBreakerResponse](t)(h.breakers().OpenBreaker(h.context(), &outriggerv1.OpenBreakerRequest{Name: "greeter"})).GetBreaker()
	if opened.GetState() != outriggerv1.Breaker_OPEN || !opened.GetForced() || opened.GetOpenUntil() != nil || opened.GetReason() != "opened by an operator" {
		t.Errorf("%v", opened)
	}
	h.call(greeter, sayHello, 2, policy.OK)
	closed := must[*outriggerv1.CloseBreakerResponse](t)(h.breakers().CloseBreaker(h.context(), &outriggerv1.CloseBreakerRequest{Name: "greeter"})).GetBreaker()
	if closed.GetState() != outriggerv1.Breaker_CLOSED || closed.GetRefused() != 2 || closed.GetForced() {
		t.Errorf("%v", closed)
	}
	// When it is reset, then what it counted is forgotten.
	h.call(greeter, sayHello, 4, policy.Unavailable)
	reset := must[*outriggerv1.ResetBreakerResponse](t)(h.breakers().ResetBreaker(h.context(), &outriggerv1.ResetBreakerRequest{Name: "greeter"})).GetBreaker()
	if reset.GetConsecutiveFailures() != 0 || reset.GetReason() != "reset by an operator" {
		t.Errorf("%v", reset)
	}
}

func TestAnUnknownBreakerIsAnsweredWithTheKnownOnes(t *testing.T) {
	h := newHouse(t)
	_, err := h.breakers().OpenBreaker(h.context(), &outriggerv1.OpenBreakerRequest{Name: "greter"})
	wantCode(t, err, codes.NotFound)
	h.add("greeter", reference(policy.ScopeService))
	h.add("billing", reference(policy.ScopeService))
	_, err = h.breakers().OpenBreaker(h.context(), &outriggerv1.OpenBreakerRequest{Name: "greter"})
	if s := wantCode(t, err, codes.NotFound); s.Message() != `there is no breaker "greter"; known: billing, greeter` {
		t.Error(s.Message())
	}
	_, err = h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{Service: "greter"})
	if s := wantCode(t, err, codes.NotFound); s.Message() != `there is no service "greter"; known: billing, greeter` {
		t.Error(s.Message())
	}
}

func TestMethodNamesThatAreNoTextAreShown(t *testing.T) {
	// Given a caller that names a method in bytes that are no UTF-8,
	h := newHouse(t)
	h.call(h.add("greeter", reference(policy.ScopeMethod)), "/x/\xff\xfe", 1, policy.OK)
	// when breakers are listed, then the list is whole,
	list := must[*outriggerv1.ListBreakersResponse](t)(h.breakers().ListBreakers(h.context(), &outriggerv1.ListBreakersRequest{}))
	i := slices.IndexFunc(list.GetBreakers(), func(b *outriggerv1.Breaker) bool { return strings.HasPrefix(b.GetName(), "greeter/x/") })
	if i < 0 {
		t.Fatalf("%v", list)
	}
	// and the breaker goes by the name that it is shown with.
	must[*outriggerv1.OpenBreakerResponse](t)(h.breakers().OpenBreaker(h.context(), &outriggerv1.OpenBreakerRequest{Name: list.GetBreakers()[i].GetName()}))
}

func TestWatchBreakersTellsEachChange(t *testing.T) {
	// Given a watcher that has seen the breaker closed,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	stream := must[outriggerv1.BreakerService_WatchBreakersClient](t)(h.breakers().WatchBreakers(h.context(), &outriggerv1.WatchBreakersRequest{}))
	receive := must[*outriggerv1.WatchBreakersResponse](t)
	if m := receive(stream.Recv()); m.GetBreaker().GetState() != outriggerv1.Breaker_CLOSED || m.GetTransition() != nil {
		t.Fatalf("%v", m)
	}
	// when it opens, then the watcher learns of it and why,
	h.call(greeter, sayHello, 5, policy.Unavailable)
	m := receive(stream.Recv())
	change := m.GetTransition()
	if change.GetFrom() != outriggerv1.Breaker_CLOSED || change.GetTo() != outriggerv1.Breaker_OPEN || change.GetReason() != "5 failures in a row" || change.GetSkipped() != 0 {
		t.Fatalf("%v", m)
	}
	// when it observes instead, then of that,
	observing := reference(policy.ScopeService)
	observing.Breaker.Options.Mode = breaker.Observe
	greeter.Update(policy.Settings{Policy: observing})
	h.server.Changed()
	if m := receive(stream.Recv()); m.GetBreaker().GetMode() != outriggerv1.Breaker_OBSERVE || m.GetTransition() != nil {
		t.Fatalf("%v", m)
	}
	// and when the service leaves, of that.
	h.remove("greeter")
	h.server.Changed()
	if m := receive(stream.Recv()); !m.GetGone() || m.GetBreaker().GetName() != "greeter" {
		t.Fatalf("%v", m)
	}
}

func TestWatchersThatAreTooSlowMissNothingButSteps(t *testing.T) {
	// Given what a watcher knows,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	var diff breakerDiff
	var got []*outriggerv1.WatchBreakersResponse
	look := func() {
		got = nil
		if err := diff.next(h.server, breakersOf(h.Services()), func(m *outriggerv1.WatchBreakersResponse) error {
			got = append(got, m)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	look()
	// when the breaker changes twice before it looks again,
	greeter.Breakers()[0].Breaker.ForceOpen(time.Second)
	greeter.Breakers()[0].Breaker.ForceClose(2 * time.Second)
	look()
	// then it is told where it ends, and that a step is missing;
	if len(got) != 1 || got[0].GetTransition().GetSkipped() != 1 || got[0].GetTransition().GetTo() != outriggerv1.Breaker_CLOSED {
		t.Fatalf("%v", got)
	}
	// and of no change nothing.
	if look(); len(got) != 0 {
		t.Fatalf("%v", got)
	}
}
