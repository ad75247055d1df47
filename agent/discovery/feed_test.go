package discovery

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-rpc/outrigger/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// told is a source that does what the test tells it.
type told struct {
	do        chan func(Sink) error
	refreshed int
	runs      int
}

func (*told) Name() string { return "told" }
func (s *told) Refresh()   { s.refreshed++ }
func (s *told) Run(ctx context.Context, sink Sink) error {
	s.runs++
	for {
		select {
		case <-ctx.Done():
			return nil
		case do := <-s.do:
			if err := do(sink); err != nil {
				return err
			}
		}
	}
}

func (s *told) publish(addresses ...string) {
	s.do <- func(sink Sink) error { sink.Publish(set(addresses...), ""); return nil }
}

func (s *told) fail(why string) {
	s.do <- func(sink Sink) error { sink.Fail(errors.New(why)); return nil }
}

// delivered keeps what a feed delivers.
type delivered struct {
	mu   sync.Mutex
	sets []Snapshot
}

func (d *delivered) deliver(s Snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sets = append(d.sets, s)
}

func (d *delivered) all() []Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sets)
}

func (d *delivered) last() (addresses []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sets) == 0 {
		return nil
	}
	for _, e := range d.sets[len(d.sets)-1].Endpoints {
		addresses = append(addresses, e.Address)
	}
	return addresses
}

// fed runs a feed of a told source in virtual time.
func fed(t *testing.T, test func(*told, *Feed, *delivered)) {
	synctest.Test(t, func(*testing.T) {
		source, got := &told{do: make(chan func(Sink) error)}, &delivered{}
		f := NewFeed(FeedOptions{Source: source, Deliver: got.deliver})
		f.Start()
		test(source, f, got)
		f.Stop()
	})
}

func TestAStaticSourceNeedsNoGoroutine(t *testing.T) {
	var got []Snapshot
	f := NewFeed(FeedOptions{Source: NewStatic([]balancer.Spec{{Address: "b:1"}, {Address: "a:1", Weight: 3}}), Deliver: func(s Snapshot) { got = append(got, s) }})
	f.Start()
	defer f.Stop()

	if len(got) != 1 || got[0].Version != 1 || len(got[0].Endpoints) != 2 || got[0].Endpoints[0].Address != "a:1" || got[0].Endpoints[1].Weight != 1 {
		t.Fatalf("%+v", got)
	}
	if s := f.Status(); s != (Status{Source: "static", Version: 1, Endpoints: 2}) {
		t.Errorf("%+v", s)
	}
}

func TestAFeedNumbersItsSets(t *testing.T) {
	fed(t, func(source *told, _ *Feed, got *delivered) {
		source.publish("a:1")
		synctest.Wait()
		source.publish("a:1") // nothing new
		source.publish("a:1", "b:1")
		time.Sleep(DefaultCoalesce)
		synctest.Wait()

		sets := got.all()
		if len(sets) != 2 || sets[0].Version != 1 || sets[1].Version != 2 || len(sets[1].Endpoints) != 2 {
			t.Fatalf("%+v", sets)
		}
	})
}

func TestASourceThatFailsKeepsTheLastSetAndAges(t *testing.T) {
	fed(t, func(source *told, f *Feed, got *delivered) {
		source.publish("a:1")
		time.Sleep(time.Second)
		source.fail("the wire is cut")
		time.Sleep(10 * time.Second)
		synctest.Wait()

		if s := f.Status(); s != (Status{Source: "told", Version: 1, Endpoints: 1, Stale: true, Age: 11 * time.Second, Problem: "the wire is cut"}) {
			t.Errorf("%+v", s)
		}
		if len(got.all()) != 1 {
			t.Errorf("delivered %+v", got.all())
		}
		source.publish("a:1")
		synctest.Wait()
		if s := f.Status(); s != (Status{Source: "told", Version: 1, Endpoints: 1}) {
			t.Errorf("recovered: %+v", s)
		}
	})
}

func TestASourceThatHasNotAnsweredIsNotStale(t *testing.T) {
	fed(t, func(source *told, f *Feed, got *delivered) {
		source.fail("nobody there")
		time.Sleep(3 * time.Second)
		synctest.Wait()

		if s := f.Status(); s != (Status{Source: "told", Age: 3 * time.Second, Problem: "nobody there"}) {
			t.Errorf("%+v", s)
		}
		if len(got.all()) != 0 {
			t.Errorf("delivered %+v", got.all())
		}
	})
}

func TestASourceThatReturnsIsRunAgain(t *testing.T) {
	fed(t, func(source *told, f *Feed, got *delivered) {
		source.publish("a:1")
		source.do <- func(Sink) error { return errors.New("gave up") }
		synctest.Wait()
		if s := f.Status(); !s.Stale || s.Problem != "gave up" {
			t.Errorf("%+v", s)
		}
		source.publish("b:1") // taken by the next run
		synctest.Wait()

		if source.runs != 2 || f.Status().Stale {
			t.Errorf("%d runs, %+v", source.runs, f.Status())
		}
	})
}

func TestANoteIsNoFailure(t *testing.T) {
	fed(t, func(source *told, f *Feed, _ *delivered) {
		source.do <- func(sink Sink) error { sink.Publish(nil, "no such name"); return nil }
		synctest.Wait()

		if s := f.Status(); s != (Status{Source: "told", Version: 1, Problem: "no such name"}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestRefreshReachesTheSource(t *testing.T) {
	fed(t, func(source *told, f *Feed, _ *delivered) {
		f.Refresh()
		if source.refreshed != 1 {
			t.Error(source.refreshed)
		}
	})
}

func TestNothingIsDeliveredAfterStop(t *testing.T) {
	synctest.Test(t, func(*testing.T) {
		source, got := &told{do: make(chan func(Sink) error)}, &delivered{}
		f := NewFeed(FeedOptions{Source: source, Deliver: got.deliver})
		f.Start()
		source.publish("a:1")
		synctest.Wait()
		source.publish("a:1", "b:1")
		f.Stop()
		time.Sleep(time.Minute)

		if len(got.all()) != 1 {
			t.Errorf("%+v", got.all())
		}
	})
}
