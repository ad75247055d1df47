package main

import (
	"context"
	"encoding/json"
	"os"
	"sync"
	"syscall"
	"time"
)

// dialers is how many connections are opened at the same time.
const dialers = 64

// attackerNice keeps the attacker behind the good client where both want the
// processor: it stands for another machine.
const attackerNice = 10

// strikeReport is what the attacker saw of one connection.
type strikeReport struct {
	Peer   string        `json:"peer"`             // its own address; empty: it never connected
	At     time.Duration `json:"at_ns"`            // when it was opened, from the attack's start
	Frames int           `json:"frames,omitempty"` // sent
	// CutAfter is from the opening to the cut-off; zero: it was not cut off.
	CutAfter time.Duration `json:"cut_after_ns,omitempty"`
	Lasted   time.Duration `json:"lasted_ns,omitempty"`
	// How is how it was cut off, or why it never connected.
	How string `json:"how,omitempty"`
}

func (s *strikeReport) cut() bool { return s.CutAfter != 0 }

// attackerMain runs one attack and writes its strikes to stdout as JSON.
func attackerMain(ctx context.Context, p plan, target string) error {
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, attackerNice) // the attack goes on without
	ctx, cancel := context.WithTimeout(ctx, attackTime)
	defer cancel()
	return json.NewEncoder(os.Stdout).Encode(runAttack(ctx, p, target))
}

// runAttack holds the plan's connections until they are cut off for the last
// time or ctx ends.
func runAttack(ctx context.Context, p plan, target string) []strikeReport {
	var mu sync.Mutex
	var all []strikeReport
	begin := time.Now()
	tickets := make(chan struct{}, dialers)
	var running sync.WaitGroup
	for range max(p.connections, 1) {
		running.Go(func() {
			for try := 0; try <= p.reconnects && ctx.Err() == nil; try++ {
				if try > 0 && !wait(ctx, reconnectPause) {
					return
				}
				tickets <- struct{}{}
				at := time.Since(begin)
				connection, err := dial(ctx, target)
				<-tickets
				s := strikeReport{At: at}
				if err != nil {
					s.How = err.Error()
				} else {
					s.strike(connection, p.attack)
				}
				mu.Lock()
				all = append(all, s)
				mu.Unlock()
			}
		})
	}
	running.Wait()
	return all
}

// strike attacks on a connection to its end and notes what came of it.
func (s *strikeReport) strike(p *peer, a attack) {
	p.finish(a.strike(p))
	s.Lasted = time.Since(p.opened)
	s.Peer, s.Frames, s.CutAfter, s.How = p.nc.LocalAddr().String(), p.frames, p.cutAt, p.cutHow
	if s.cut() && p.goAway != "" {
		s.CutAfter, s.How = p.saidAt, p.goAway
	}
}

// wait reports false when ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
