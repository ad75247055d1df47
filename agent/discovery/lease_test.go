package discovery

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
)

func at(address string) Endpoint {
	return Endpoint{Spec: balancer.Spec{Address: address, Weight: 1}}
}

// booked runs a feed of one service's registrations in virtual time: at most 3
// endpoints, a minute each.
func booked(t *testing.T, test func(*Leases, *Feed, *delivered)) {
	synctest.Test(t, func(*testing.T) {
		l, got := NewLeases(), &delivered{}
		f := NewFeed(FeedOptions{Source: l.Open("greeter", LeaseLimits{time.Minute, 3}), Deliver: got.deliver})
		f.Start()
		synctest.Wait()
		test(l, f, got)
		f.Stop()
	})
}

func register(t *testing.T, l *Leases, address string, length time.Duration) string {
	t.Helper()
	id, _, err := l.Register("greeter", at(address), length)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestALeaseThatIsRenewedHoldsAndOneThatIsNotLapses(t *testing.T) {
	booked(t, func(l *Leases, f *Feed, got *delivered) {
		if s := f.Status(); s.Version != 1 || s.Problem != "no endpoint is registered" {
			t.Errorf("at first: %+v", s)
		}
		a, b := register(t, l, "a:1", 10*time.Second), register(t, l, "b:1", 10*time.Second)
		for range 4 {
			time.Sleep(6 * time.Second)
			if length, err := l.Renew(a); err != nil || length != 10*time.Second {
				t.Fatal(length, err)
			}
		}
		synctest.Wait()

		if !got.have("a:1")() {
			t.Errorf("%v", got.last())
		}
		if _, err := l.Renew(b); !errors.Is(err, ErrNoLease) {
			t.Errorf("renewed what lapsed: %v", err)
		}
	})
}

func TestALeaseEndsToTheMoment(t *testing.T) {
	booked(t, func(l *Leases, _ *Feed, _ *delivered) {
		id := register(t, l, "a:1", 10*time.Second)
		time.Sleep(10*time.Second - 1)
		if _, err := l.Renew(id); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if _, err := l.Renew(id); !errors.Is(err, ErrNoLease) {
			t.Errorf("%v", err)
		}
	})
}

func TestAnAddressIsTakenOver(t *testing.T) {
	booked(t, func(l *Leases, _ *Feed, got *delivered) {
		first := register(t, l, "a:1", time.Minute)
		second, granted, err := l.Register("greeter", Endpoint{Spec: balancer.Spec{Address: "a:1", Weight: 7}}, time.Hour)
		if err != nil || granted != time.Minute {
			t.Fatal(granted, err)
		}
		if _, err := l.Renew(first); !errors.Is(err, ErrNoLease) {
			t.Errorf("the old lease: %v", err)
		}
		l.Unregister(first) // no harm to the new one
		time.Sleep(DefaultCoalesce)
		synctest.Wait()
		if sets := got.all(); len(sets[len(sets)-1].Endpoints) != 1 || sets[len(sets)-1].Endpoints[0].Weight != 7 {
			t.Errorf("%+v", sets)
		}
		l.Unregister(second)
		time.Sleep(DefaultHold)
		synctest.Wait()
		if !got.have()() {
			t.Errorf("%v", got.last())
		}
	})
}

func TestRegistrationsAreBounded(t *testing.T) {
	booked(t, func(l *Leases, _ *Feed, _ *delivered) {
		for i := range 3 {
			register(t, l, fmt.Sprintf("a:%d", i+1), 10*time.Second)
		}
		if _, _, err := l.Register("greeter", at("a:4"), time.Second); !errors.Is(err, ErrFull) {
			t.Errorf("%v", err)
		}
		register(t, l, "a:3", 10*time.Second) // the same address is no more
		if _, err := l.Stream("greeter").Set([]Endpoint{at("a:4")}); !errors.Is(err, ErrFull) {
			t.Errorf("stream: %v", err)
		}
		time.Sleep(10 * time.Second)
		register(t, l, "a:4", time.Second) // those that lapsed make room
	})
}

func TestAServiceWithoutABookTakesNone(t *testing.T) {
	l := NewLeases()
	if _, _, err := l.Register("billing", at("a:1"), time.Second); !errors.Is(err, ErrNoBook) {
		t.Errorf("%v", err)
	}
	if _, err := l.Stream("billing").Set(nil); !errors.Is(err, ErrNoBook) {
		t.Errorf("%v", err)
	}
	l.Open("billing", LeaseLimits{time.Minute, 1})
	id, _, err := l.Register("billing", at("a:1"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	l.Close("billing")
	if _, err := l.Renew(id); !errors.Is(err, ErrNoLease) {
		t.Errorf("%v", err)
	}
}

func TestAStreamRegistersAsLongAsItIsOpen(t *testing.T) {
	booked(t, func(l *Leases, _ *Feed, got *delivered) {
		s := l.Stream("greeter")
		if n, err := s.Set([]Endpoint{at("a:1"), at("b:1")}); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		time.Sleep(time.Hour) // nothing has to be renewed
		synctest.Wait()
		if !got.have("a:1", "b:1")() {
			t.Errorf("%v", got.last())
		}
		// What the next message leaves out is gone.
		if n, err := s.Set([]Endpoint{at("b:1"), at("c:1"), at("d:1")}); err != nil || n != 3 {
			t.Fatal(n, err)
		}
		// What another one takes over is left to it, and outlives the stream.
		register(t, l, "b:1", time.Minute)
		if n, err := s.Set([]Endpoint{at("b:1"), at("c:1")}); err != nil || n != 2 {
			t.Fatal(n, err)
		}
		s.Close()
		time.Sleep(DefaultHold + time.Second)
		synctest.Wait()
		if !got.have("b:1")() {
			t.Errorf("%v", got.last())
		}
	})
}

func TestRegistrationsOutliveAChangeOfTheLimits(t *testing.T) {
	l := NewLeases()
	l.Open("greeter", LeaseLimits{time.Minute, 3})
	id := register(t, l, "a:1", time.Minute)
	l.Open("greeter", LeaseLimits{time.Second, 1})
	if length, err := l.Renew(id); err != nil || length != time.Second {
		t.Errorf("%v, %v", length, err)
	}
}
