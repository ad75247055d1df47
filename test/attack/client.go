package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	callsPerSecond = 200
	callBytes      = 100
	callDeadline   = 2 * time.Second
)

// goodClient makes unary calls through the agent at a steady rate, whether or
// not the earlier ones have returned (an open loop), on a connection of its
// own.
type goodClient struct {
	cc      *grpc.ClientConn
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	calls []sample
}

// sample is one call of the good client.
type sample struct {
	start time.Time
	took  time.Duration
	err   error
}

// startClient begins to call address; end it with close.
func startClient(address string) (*goodClient, error) {
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority(authority), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &goodClient{cc: cc, stop: cancel}
	c.running.Go(func() { c.loop(ctx) })
	return c, nil
}

func (c *goodClient) loop(ctx context.Context) {
	const every = time.Second / callsPerSecond
	for due := time.Now(); ctx.Err() == nil; due = due.Add(every) {
		time.Sleep(time.Until(due))
		c.running.Go(c.call)
	}
}

// call makes one call. Its time counts from when it is sent, not from when it
// was due: a late timer in this process is not the agent's doing.
func (c *goodClient) call() {
	ctx, cancel := context.WithTimeout(context.Background(), callDeadline)
	defer cancel()
	in, out := wrapperspb.Bytes(make([]byte, callBytes)), new(wrapperspb.BytesValue)
	s := sample{start: time.Now()}
	s.err = c.cc.Invoke(ctx, echoPath, in, out)
	s.took = time.Since(s.start)
	if s.err == nil && len(out.Value) != callBytes {
		s.err = errors.New("a wrong answer")
	}
	c.mu.Lock()
	c.calls = append(c.calls, s)
	c.mu.Unlock()
}

// close waits for the calls under way.
func (c *goodClient) close() {
	c.stop()
	c.running.Wait()
	c.cc.Close()
}

// experience is what the good client felt during a stretch of time.
type experience struct {
	Calls   int           `json:"calls"`
	Failed  int           `json:"failed"`
	Success float64       `json:"success"` // share of Calls, 0 to 1
	P99     time.Duration `json:"p99_ns"`
	Worst   time.Duration `json:"worst_ns"`
	Error   string        `json:"error,omitempty"` // of the first call that failed
}

// between sums up the calls that were sent in [from, to). A failed call counts
// with the time until it failed.
func (c *goodClient) between(from, to time.Time) experience {
	c.mu.Lock()
	defer c.mu.Unlock()
	var e experience
	var took []time.Duration
	for _, s := range c.calls {
		if s.start.Before(from) || !s.start.Before(to) {
			continue
		}
		took = append(took, s.took)
		if s.err != nil {
			if e.Failed++; e.Error == "" {
				e.Error = s.err.Error()
			}
		}
	}
	e.Calls = len(took)
	if e.Calls == 0 {
		return e
	}
	slices.Sort(took)
	e.Success = float64(e.Calls-e.Failed) / float64(e.Calls)
	e.P99 = took[(len(took)*99)/100]
	e.Worst = took[len(took)-1]
	return e
}
