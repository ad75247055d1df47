package demo

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/sla"
)

// callDeadline is what the demo's app gives each call.
const callDeadline = 3 * time.Second

// load is an app: it starts calls at a steady rate and notes how they end, by
// the same rules as the agent's SLA.
type load struct {
	cc       *grpc.ClientConn
	begun    time.Time
	recorder *sla.Recorder

	mu  sync.Mutex
	now lap
}

// lap is what happened since the last look.
type lap struct {
	calls, failed int
	servers       map[string]int
	latency       sla.Histogram
}

func newLoad(cc *grpc.ClientConn) *load {
	return &load{cc: cc, begun: time.Now().Add(-time.Nanosecond), recorder: sla.NewRecorder(sla.Options{}), now: lap{servers: map[string]int{}}}
}

// run starts calls until ctx ends, then waits for those under way.
func (l *load) run(ctx context.Context) {
	ticker := time.NewTicker(time.Second / perSecond)
	defer ticker.Stop()
	var calls sync.WaitGroup
	defer calls.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			// Calls are not cut off by the end of the demo: each has its deadline.
			calls.Go(func() { l.call(context.WithoutCancel(ctx)) })
		}
	}
}

func (l *load) call(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	var header metadata.MD
	start := time.Now()
	err := l.cc.Invoke(ctx, method, wrapperspb.String("you"), new(wrapperspb.StringValue), grpc.Header(&header))
	took := time.Since(start)
	outcome := sla.Success
	switch status.Code(err) {
	case codes.OK:
	case codes.Unavailable, codes.DeadlineExceeded:
		outcome = sla.Unavailable
	default:
		outcome = sla.Failure
	}
	l.recorder.Record(time.Since(l.begun), outcome, took)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now.calls++
	if err != nil {
		l.now.failed++
	}
	l.now.latency.Record(took)
	for _, name := range header.Get(serverHeader) {
		l.now.servers[name]++
	}
}

// lap returns what happened since the last call of lap.
func (l *load) lap() lap {
	l.mu.Lock()
	defer l.mu.Unlock()
	done := l.now
	l.now = lap{servers: map[string]int{}}
	return done
}
