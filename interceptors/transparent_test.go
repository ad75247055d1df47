package interceptors

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// startRefusing serves HTTP/2 and refuses every stream, which says that nothing
// was done with it.
func (ss *servers) startRefusing(name string) *atomic.Int64 {
	l := bufconn.Listen(1 << 20)
	ss.listeners[name] = l
	streams, done := new(atomic.Int64), make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			refuse(nc, streams)
		}
	}()
	ss.t.Cleanup(func() { l.Close(); <-done })
	return streams
}

func refuse(nc net.Conn, streams *atomic.Int64) {
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(nc, nc)
	_ = framer.WriteSettings()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			streams.Add(1)
			_ = framer.WriteRSTStream(f.StreamID, http2.ErrCodeRefusedStream)
		}
	}
}

func TestWhatWasRefusedUnprocessedGoesElsewhereAtNoCost(t *testing.T) {
	ss := newServers(t)
	refused := ss.startRefusing("a")
	var previous string
	b := ss.start("b", func(ctx context.Context, _ int64) error {
		md, _ := metadata.FromIncomingContext(ctx)
		previous += strings.Join(md.Get("grpc-previous-rpc-attempts"), ",")
		return nil
	})
	p := retrying()
	p.LoadBalancing = balancer.Options{Policy: balancer.RoundRobin}
	p.Retry.Budget = policy.BudgetPolicy{} // nothing to spend
	cc, service := ss.connect(p, []string{"a", "b"})

	eventually(t, "no call meets the endpoint that refuses", func() bool {
		if who, err := ask(t.Context(), cc); err != nil || who != "b" {
			t.Fatalf("answered by %q, %v", who, err)
		}
		return refused.Load() > 0
	})

	did := actions(service)
	if did["transparent_retry"] != uint64(refused.Load()) || did["retry"] != 0 || previous != "" {
		t.Fatalf("%d refused; %v; the server was told of attempts before: %q", refused.Load(), did, previous)
	}
	if b.calls.Load() == 0 {
		t.Fatal("b got no call")
	}
	nothingHeld(t, service)
}

func TestWhatEveryoneRefusesEnds(t *testing.T) {
	for _, balanced := range []bool{true, false} {
		ss := newServers(t)
		refused := ss.startRefusing("a")
		cc := ss.either(balanced, retrying(), "a")

		_, err := ask(t.Context(), cc)

		if n := refused.Load(); status.Code(err) != codes.Unavailable || n < 2 || n > 12 { // 4 + 2, and grpc-go sends each twice
			t.Errorf("balanced %v: %v after %d attempts", balanced, err, n)
		}
	}
}
