package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// service is the name that the agent serves the endpoints under.
const service = "upstream"

// deadline is the caller's.
const deadline = 5 * time.Second

// load is calls at an even pace, whatever becomes of them (open loop).
type load struct {
	stop  chan struct{}
	group sync.WaitGroup

	mu    sync.Mutex
	calls []outcome
}

// outcome is how a call ended.
type outcome struct {
	began time.Time
	took  time.Duration
	err   error
}

var message = wrapperspb.Bytes(bytes.Repeat([]byte("x"), 100))

// connect opens connections to an address, for calls of the service.
func connect(address string, n int) (ccs []*grpc.ClientConn, shut func() error, err error) {
	var open closers
	for range n {
		cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithAuthority(service), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			_ = open.close()
			return nil, nil, err
		}
		open.add(cc.Close)
		ccs = append(ccs, cc)
	}
	return ccs, open.close, nil
}

// startLoad makes so many calls a second over the connections in turn, until
// end.
func startLoad(ccs []*grpc.ClientConn, perSecond int) *load {
	l := &load{stop: make(chan struct{})}
	l.group.Go(func() {
		began := time.Now()
		for i := 0; ; i++ {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond))))
			select {
			case <-l.stop:
				return
			default:
			}
			l.group.Go(func() { l.call(ccs[i%len(ccs)]) })
		}
	})
	return l
}

func (l *load) call(cc *grpc.ClientConn) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	began := time.Now()
	err := cc.Invoke(ctx, method, message, new(wrapperspb.BytesValue))
	l.mu.Lock()
	l.calls = append(l.calls, outcome{began, time.Since(began), err})
	l.mu.Unlock()
}

// end makes no further call and waits for those under way.
func (l *load) end() {
	close(l.stop)
	l.group.Wait()
}

// tally counts the calls that began from one time on and before another, once
// they are over, with the longest.
func (l *load) tally(from, to time.Time) (calls, failed int, longest time.Duration, errs map[string]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	errs = make(map[string]int)
	for _, c := range l.calls {
		if c.began.Before(from) || !c.began.Before(to) {
			continue
		}
		calls++
		longest = max(longest, c.took)
		if c.err != nil {
			failed++
			errs[fmt.Sprint(c.err)]++
		}
	}
	return calls, failed, longest, errs
}
