package agent

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// restart stops the server in good order and starts another one on its address,
// as a deployment does.
func (u *upstream) restart(t *testing.T) {
	t.Helper()
	u.server.GracefulStop()
	time.Sleep(50 * time.Millisecond) // nobody is there
	l, err := net.Listen("tcp", u.address)
	if err != nil {
		t.Fatal(err)
	}
	u.listener = l
	u.build()
	u.serve(t)
}

// TestARollingRestartLosesNoCall: every endpoint is restarted, one by one, under
// load and with retries off. What an endpoint refused, or never saw, goes to
// another one; what it took it finishes.
func TestARollingRestartLosesNoCall(t *testing.T) {
	var upstreams []*upstream
	for range 5 {
		u := startUpstream(t)
		u.takes.Store(int64(2 * time.Millisecond))
		upstreams = append(upstreams, u)
	}
	a := startAgent(t, configOf("retry: {mode: OFF}, circuit_breaker: {mode: OFF}, connections: {warm: 1}", upstreams...))
	var callers sync.WaitGroup
	var calls, failed atomic.Int64
	stop := make(chan struct{})
	end := sync.OnceFunc(func() { close(stop); callers.Wait() })
	t.Cleanup(end) // before the upstreams are stopped, however the test ends
	for range 8 {
		app := a.app()
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				calls.Add(1)
				if err := call(app); err != nil && failed.Add(1) <= 3 {
					t.Errorf("call failed: %v", err)
				}
			}
		})
	}
	served := func() (n int64) {
		for _, u := range upstreams {
			n += u.calls.Load()
		}
		return n
	}
	for i, u := range upstreams {
		before := served()
		eventually(t, "there is load", func() bool { return served() > before+50 })
		u.restart(t)
		after := u.calls.Load()
		eventually(t, "the endpoint is back", func() bool {
			return a.endpoint(u.address).GetState() == outriggerv1.Endpoint_READY && u.calls.Load() > after
		})
		t.Logf("endpoint %d restarted after %d calls", i, calls.Load())
	}
	end()
	if failed.Load() > 0 {
		t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
	}
	t.Logf("%d calls, %d failed, over %d restarts", calls.Load(), failed.Load(), len(upstreams))
}
