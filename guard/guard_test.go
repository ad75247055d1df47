package guard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	first  = "10.0.0.1:5432"
	second = "10.0.0.2:5432"
)

// bounded lets n in at a time; others may wait for 10 s.
func bounded(n int) policy.Policy {
	return policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: n, MaxQueue: 1000, QueueTimeout: 10 * time.Second}}
}

// ended returns how many calls of a service ended with a code.
func ended(s *policy.Service, code string) uint64 {
	for _, c := range s.Codes() {
		if c.Label == code {
			return c.Total
		}
	}
	return 0
}

// eventually looks until ok, or until the test's patience ends.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestAPermitIsAcquiredAndReported(t *testing.T) {
	h := newHouse(t)
	s := h.add("database", policy.Policy{Timeout: time.Minute, PerTryTimeout: time.Second}, first)
	c := h.client()
	p, err := c.Acquire(h.context(), Request{Service: "database", Method: "/orders"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Service != "database" || p.Method != "/orders" || p.Endpoint != first || p.Attempt != 1 || p.AttemptsLeft != 0 {
		t.Errorf("%+v", p)
	}
	if left := time.Until(p.Deadline); left > 20*time.Second || left < 10*time.Second {
		t.Errorf("%v left, the context has 20 s", left)
	}
	if left := time.Until(p.TryDeadline); left > time.Second || time.Until(p.Lease) < left {
		t.Errorf("%v for the try, %v on lease", left, time.Until(p.Lease))
	}
	p.Done(nil)
	p.Done(errors.New("once more")) // does nothing
	eventually(t, "it was not reported", func() bool { return ended(s, "OK") == 1 })
	if n := s.Endpoints().All()[0].InFlight(); n != 0 || ended(s, "UNKNOWN") != 0 {
		t.Errorf("%d in flight, %v", n, s.Codes())
	}
}

// TestManyGoroutinesShareAStream: 64 goroutines make 6400 calls on 8 slots, and
// never are more than 8 at it.
func TestManyGoroutinesShareAStream(t *testing.T) {
	h := newHouse(t)
	s := h.add("database", bounded(8))
	c := h.client()
	ctx := h.context()
	var inside, most atomic.Int64
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for range 100 {
				p, err := c.Acquire(ctx, Request{Service: "database"})
				if err != nil {
					t.Error(err)
					return
				}
				n := inside.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				inside.Add(-1)
				p.Done(nil)
			}
		})
	}
	all.Wait()
	eventually(t, "not all were reported", func() bool { return ended(s, "OK") == 6400 })
	if most.Load() > 8 || most.Load() == 0 {
		t.Errorf("%d at once", most.Load())
	}
}

func TestARefusalHasItsReason(t *testing.T) {
	// Given one slot, which is taken,
	h := newHouse(t)
	h.add("database", bounded(1))
	c := h.client()
	held, err := c.Acquire(h.context(), Request{Service: "database"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Done(nil)
	// when another asks who does not wait, then it hears why,
	_, err = c.Acquire(h.context(), Request{Service: "database", Wait: NoWait})
	var refused *Error
	if !errors.As(err, &refused) || Reason(err) != "CONCURRENCY_LIMIT" || refused.RetryAfter <= 0 || refused.Service != "database" || refused.Policy != "concurrency" {
		t.Fatalf("%#v", err)
	}
	// also as a gRPC status.
	s := status.Convert(fmt.Errorf("wrapped: %w", err))
	if s.Code() != codes.ResourceExhausted || len(s.Details()) != 2 {
		t.Fatalf("%v %v", s, s.Details())
	}
	if info, ok := s.Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != "CONCURRENCY_LIMIT" || info.GetDomain() != "outrigger" || info.GetMetadata()["policy"] != "concurrency" {
		t.Errorf("%v", s.Details())
	}
	// Given who waits a little, then that is what it waits.
	if _, err = c.Acquire(h.context(), Request{Service: "database", Wait: 20 * time.Millisecond}); Reason(err) != "QUEUE_TIMEOUT" {
		t.Error(err)
	}
	// A mistake has no reason.
	if _, err = c.Acquire(h.context(), Request{Service: "databse"}); !errors.As(err, &refused) || refused.Code != codes.NotFound || Reason(err) != "" {
		t.Error(err)
	}
	if _, err = c.Acquire(h.context(), Request{Service: "database", Method: "orders"}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
}

func TestWhoGivesUpHoldsNothing(t *testing.T) {
	// Given one slot, which is taken,
	h := newHouse(t)
	s := h.add("database", bounded(1))
	c := h.client()
	held, err := c.Acquire(h.context(), Request{Service: "database"})
	if err != nil {
		t.Fatal(err)
	}
	// when many wait for it and give up, some of them while it is given to them,
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(h.context())
			time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel)
			p, err := c.Acquire(ctx, Request{Service: "database"})
			switch {
			case err == nil:
				p.Done(nil)
			case status.Code(err) != codes.Canceled || !errors.Is(err, context.Canceled):
				t.Error(err)
			}
			cancel()
		})
	}
	time.AfterFunc(5*time.Millisecond, func() { held.Done(nil) })
	all.Wait()
	// then the slot is there for the next.
	p, err := c.Acquire(h.context(), Request{Service: "database"})
	if err != nil {
		t.Fatal(err)
	}
	p.Done(nil)
	eventually(t, "a call is not over", func() bool { return ended(s, "OK")+ended(s, "CANCELLED") == 102 })
}

func TestAContextThatIsOverAsksNobody(t *testing.T) {
	h := newHouse(t)
	s := h.add("database", policy.Policy{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.client().Acquire(ctx, Request{Service: "database"}); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	if len(s.Codes()) != 0 {
		t.Error(s.Codes())
	}
}

func TestAfterARestartOfTheAgent(t *testing.T) {
	// Given a permit, and another who waits,
	h := newHouse(t)
	h.add("database", bounded(1))
	c := h.client()
	p, err := c.Acquire(h.context(), Request{Service: "database"})
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := c.Acquire(h.context(), Request{Service: "database"})
		waits <- err
	}()
	// when the agent is started anew,
	h.stop()
	h.start()
	// then the permit and the wait are lost, and say so,
	if err := <-waits; status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	if _, err := p.Report(h.context(), Outcome{}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
	p.Done(nil)
	// and the client goes on by itself.
	eventually(t, "no permit after the restart", func() bool {
		p, err := c.Acquire(h.context(), Request{Service: "database"})
		if err == nil {
			p.Done(nil)
		}
		return err == nil
	})
}

func TestAnAgentThatIsNotThere(t *testing.T) {
	c, err := Dial("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := c.Acquire(ctx, Request{Service: "database"}); status.Code(err) != codes.Unavailable {
		t.Error(err)
	}
}

func TestCloseSendsWhatIsReported(t *testing.T) {
	// Given a permit that is reported, one that is not, and one who waits,
	h := newHouse(t)
	s := h.add("database", bounded(2))
	c := h.client()
	reported, err := c.Acquire(h.context(), Request{Service: "database"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Acquire(h.context(), Request{Service: "database"}); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	asked := make(chan struct{})
	go func() {
		close(asked)
		_, err := c.Acquire(h.context(), Request{Service: "database", Metadata: map[string]string{"x-wait": "1"}})
		waits <- err
	}()
	<-asked
	reported.Done(errors.New("disk full"))
	// when the client is closed, then the report arrives, the others are given
	// up,
	c.Close()
	<-waits
	eventually(t, "permits are out", func() bool { return ended(s, "UNKNOWN") == 1 && ended(s, "CANCELLED") >= 1 })
	// and nothing is asked any more.
	if _, err := c.Acquire(h.context(), Request{Service: "database"}); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	c.Close()
}
