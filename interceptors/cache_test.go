package interceptors

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

func caching() policy.Policy {
	return policy.Policy{Idempotent: true, Cache: policy.CachePolicy{TTL: time.Hour, StaleIfError: time.Hour, StaleWhileRevalidate: time.Hour}}
}

func TestAKeptAnswerIsGivenWithItsMetadata(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, service := ss.connect(caching(), []string{"a"})
	if _, err := ask(t.Context(), cc); err != nil {
		t.Fatal(err)
	}
	var header, trailer metadata.MD

	who, err := ask(t.Context(), cc, grpc.Header(&header), grpc.Trailer(&trailer))

	if err != nil || who != "a" || a.calls.Load() != 1 || len(header.Get("served-by")) != 1 || len(trailer.Get("ended-by")) != 1 {
		t.Fatalf("answered by %q, %v after %d calls; header %v, trailer %v", who, err, a.calls.Load(), header, trailer)
	}
	if n := service.Recorder().Lifetime().Calls; n != 2 {
		t.Fatalf("%d calls recorded", n)
	}
}

func TestCallersWithOtherAuthorizationShareNothing(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, _ := ss.connect(caching(), []string{"a"})
	for _, token := range []string{"ann", "bob", "ann"} {
		if _, err := ask(metadata.AppendToOutgoingContext(t.Context(), "authorization", token), cc); err != nil {
			t.Fatal(err)
		}
	}
	if a.calls.Load() != 2 {
		t.Fatalf("%d calls to the server, want one for each of two callers", a.calls.Load())
	}
}

// ownToken is credentials of one call.
type ownToken struct{}

func (ownToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "x"}, nil
}
func (ownToken) RequireTransportSecurity() bool { return false }

func TestCallsWithCredentialsOfTheirOwnAreNotCached(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, _ := ss.connect(caching(), []string{"a"})
	for range 2 {
		if _, err := ask(t.Context(), cc, grpc.PerRPCCredentials(ownToken{})); err != nil {
			t.Fatal(err)
		}
	}
	if a.calls.Load() != 2 {
		t.Fatalf("%d calls to the server, want 2", a.calls.Load())
	}
}

func TestOneCallFetchesForAllWhoWait(t *testing.T) {
	ss := newServers(t)
	release := make(chan struct{})
	a := ss.start("a", func(context.Context, int64) error { <-release; return nil })
	cc, service := ss.connect(caching(), []string{"a"})
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() {
			if who, err := ask(t.Context(), cc); err != nil || who != "a" {
				t.Errorf("answered by %q, %v", who, err)
			}
		})
	}
	eventually(t, "nobody waits", func() bool { return service.Cache().Snapshot().Followed == 9 })
	gone, leave := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer leave()
	if _, err := ask(gone, cc); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("one in a hurry: %v", err)
	}

	close(release)

	callers.Wait()
	if a.calls.Load() != 1 {
		t.Fatalf("%d calls to the server, want 1", a.calls.Load())
	}
}

// goodOnce answers the first call and fails the others.
func goodOnce(_ context.Context, call int64) error {
	if call > 1 {
		return status.Error(codes.Unavailable, "")
	}
	return nil
}

func TestAStaleAnswerIsGivenWhileAnotherIsFetched(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", goodOnce)
	p := caching()
	p.Cache.TTL = time.Millisecond
	cc, service := ss.connect(p, []string{"a"})
	if _, err := ask(t.Context(), cc); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)

	who, err := ask(t.Context(), cc)

	if err != nil || who != "a" {
		t.Fatalf("answered by %q, %v", who, err)
	}
	eventually(t, "nothing is fetched in the background", func() bool { return a.calls.Load() == 2 })
	eventually(t, "it is not recorded", func() bool { return service.Recorder().Lifetime().Calls == 3 })
}

func TestAStaleAnswerStandsInForAFailure(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", goodOnce)
	p := caching()
	p.Cache.TTL, p.Cache.StaleWhileRevalidate = time.Millisecond, 0
	cc, service := ss.connect(p, []string{"a"})
	if _, err := ask(t.Context(), cc); err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Millisecond)

	who, err := ask(t.Context(), cc)

	if err != nil || who != "a" || a.calls.Load() != 2 || service.Cache().Snapshot().StoodIn != 1 {
		t.Fatalf("answered by %q, %v after %d calls; %+v", who, err, a.calls.Load(), service.Cache().Snapshot())
	}
}

func TestOnlyIfCached(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, _ := ss.connect(caching(), []string{"a"})
	_, err := ask(metadata.AppendToOutgoingContext(t.Context(), "cache-control", "only-if-cached"), cc)
	if reason, _ := reasonOf(err); reason != policy.NotCached.String() || a.calls.Load() != 0 {
		t.Fatalf("got %v (%s)", err, reason)
	}
}

func TestACacheUnderObserveSendsEveryCall(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	p := caching()
	p.Cache.Mode = policy.Observe
	cc, service := ss.connect(p, []string{"a"})
	for range 3 {
		if _, err := ask(t.Context(), cc); err != nil {
			t.Fatal(err)
		}
	}
	if s := service.Cache().Snapshot(); a.calls.Load() != 3 || s.Hits != 2 {
		t.Fatalf("%d calls to the server, %d hits", a.calls.Load(), s.Hits)
	}
}
