package store

import (
	"context"
	"math/rand/v2"
	"time"
)

// probeEvery is how often a database that can't be used is tried.
const probeEvery = 500 * time.Millisecond

// live writes signs of life while agents share the database, and tries one that
// can't be used until it can. An agent whose signs fail for as long as a lease ends
// what it runs: others may have begun it again.
func (s *Store) live() {
	s.health.mu.Lock()
	s.health.log = s.told
	s.health.mu.Unlock()
	if t := s.health.bad.Load(); t != nil {
		s.told(t.err, t.since)
	}
	tick := time.NewTicker(min(probeEvery, s.options.Lease/6))
	defer tick.Stop()
	last := time.Now() // when the sign was begun that came through
	over := false
	for {
		select {
		case <-s.stopped.Done():
			return
		case <-tick.C:
		}
		if !s.health.opened.Load() {
			last = time.Now()
			continue
		}
		if s.health.usable() && (s.options.SQLite != nil || time.Since(last) < s.options.Lease/3) {
			continue
		}
		// A process that was frozen finds out by the time that has passed, before it
		// gives another sign.
		if s.options.Postgres != nil && !over && time.Since(last) >= s.options.Lease {
			over = true
			s.endAll(ErrLeaseOver)
		}
		patience := commitTimeout
		if s.options.Postgres != nil { // no longer than the lease lasts, so that its end is not missed over it
			patience = min(patience, s.options.Lease/3)
			if left := time.Until(last.Add(s.options.Lease)); left > 0 {
				patience = min(patience, left)
			}
		}
		begun := time.Now()
		ctx, cancel := context.WithTimeout(s.stopped, patience)
		err := s.sign(ctx)
		cancel()
		switch {
		case s.stopped.Err() != nil:
			return
		case err == nil:
			last, over = begun, false
			s.health.set(nil)
			continue
		}
		s.health.set(explained(err))
		if s.options.Postgres != nil && !over && time.Since(last) >= s.options.Lease {
			over = true
			s.endAll(ErrLeaseOver)
		}
	}
}

// sign writes that this agent lives, and which node of the ids it is: it shows too
// that the database can be written.
func (s *Store) sign(ctx context.Context) error {
	for try := 0; ; try++ {
		err := s.exec.Exec(ctx, `INSERT INTO outrigger_agent (id, node, seen) VALUES ($1, $2, `+s.dialect.nowMS()+`)
			ON CONFLICT (id) DO UPDATE SET node = excluded.node, seen = excluded.seen`, s.self, s.ids.is())
		if !isTaken(err) || try == nodes {
			return err
		}
		s.ids.join(rand.Int64N(nodes)) // another agent is this node
	}
}

// register makes the agent known before it does anything.
func (s *Store) register(ctx context.Context) error {
	if s.options.SQLite != nil { // nobody else lives
		if err := s.exec.Exec(ctx, "DELETE FROM outrigger_agent"); err != nil {
			return err
		}
	}
	return s.sign(ctx)
}
