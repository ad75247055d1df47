package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	lanes        = 4    // that open one link after another
	parallel     = 8    // calls at a time on one link
	callsPerLink = 6000 // a link is three connections: about 50 for 100,000 calls
	// callTimeout is far above what any call takes: one that gets there hangs.
	callTimeout = 30 * time.Second
)

// tally is what was done.
type tally struct {
	made        []int // by kind
	connections int
	wrong       error // the first call that ended otherwise than it should
}

func (t tally) calls() int {
	n := 0
	for _, m := range t.made {
		n += m
	}
	return n
}

// drive makes calls of every kind, in an order that is the same in every run,
// over links that are opened and closed meanwhile.
func drive(egress string, calls int) tally {
	var (
		mu   sync.Mutex
		t    = tally{made: make([]int, len(kinds))}
		left atomic.Int64 // calls not yet given to a link
		all  sync.WaitGroup
	)
	left.Store(int64(calls))
	for lane := range lanes {
		all.Go(func() {
			for turn := 0; ; turn++ {
				n := min(callsPerLink, int(left.Add(-callsPerLink))+callsPerLink)
				if n <= 0 {
					return
				}
				one := overLink(egress, n, uint64(lane<<32|turn))
				mu.Lock()
				for k, m := range one.made {
					t.made[k] += m
				}
				t.connections += one.connections
				if t.wrong == nil {
					t.wrong = one.wrong
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return t
}

// overLink makes calls over a link of its own. Every other link is cut with a
// stream still open on it.
func overLink(egress string, calls int, seed uint64) tally {
	t := tally{made: make([]int, len(kinds))}
	l, shut, err := connect(egress)
	if err != nil {
		t.wrong = err
		return t
	}
	t.connections = 3
	order := make([]int, calls)
	for i := range order {
		order[i] = kindOf(i)
		t.made[order[i]]++
	}
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same order in every run
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var (
		next  atomic.Int64
		wrong atomic.Pointer[error]
		group sync.WaitGroup
	)
	for range parallel {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(order)); i = next.Add(1) - 1 {
				k := kinds[order[i]]
				ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
				if err := k.make(ctx, l); err != nil {
					err = fmt.Errorf("%s: %w", k.name, err)
					wrong.CompareAndSwap(nil, &err)
				}
				cancel()
			}
		})
	}
	group.Wait()
	if seed%2 == 1 {
		if s, err := l.soak.NewStream(context.Background(), twoWay, "/soak.Test/Wait"); err == nil {
			_ = s.SendMsg(wrapperspb.Bytes(small))
		}
	}
	shut()
	if err := wrong.Load(); err != nil {
		t.wrong = *err
	}
	return t
}

// kindOf gives each kind its share of every hundred calls.
func kindOf(call int) int {
	call %= 100
	for k := range kinds {
		if call < kinds[k].share {
			return k
		}
		call -= kinds[k].share
	}
	return 0
}

// connect opens a link.
func connect(egress string) (l link, shut func(), err error) {
	var open []*grpc.ClientConn
	shut = func() {
		for _, cc := range open {
			_ = cc.Close()
		}
	}
	for authority, cc := range map[string]**grpc.ClientConn{"soak": &l.soak, "nobody": &l.nobody, "unknown.invalid": &l.unknown} {
		*cc, err = grpc.NewClient("passthrough:///"+egress, grpc.WithAuthority(authority), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			shut()
			return l, nil, err
		}
		open = append(open, *cc)
	}
	return l, shut, nil
}
