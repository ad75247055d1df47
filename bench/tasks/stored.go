package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

// stored is the agent's store without the agent.
type stored struct {
	store *store.Store
	queue string
	done  chan error // one for each job that was finished
}

// newStore opens one on a database of its own.
func (b *bench) newStore(ctx context.Context) (*stored, error) {
	b.made++
	o := store.Options{Lease: 30 * time.Second, Name: "bench", Retention: store.Retention{Completed: time.Hour, Cancelled: time.Hour, Failed: time.Hour}}
	if b.server != nil {
		name := fmt.Sprintf("store%d_%d", time.Now().UnixNano(), b.made)
		if err := b.server.Create(name); err != nil {
			return nil, err
		}
		o.Postgres = &store.Postgres{URL: b.server.URLOf(name), Schema: "outrigger", MaxConnections: postgresConnections, ConnectTimeout: 5 * time.Second}
	} else {
		o.SQLite = &store.SQLite{Path: filepath.Join(b.dir, fmt.Sprintf("store-%d-%d.db", time.Now().UnixNano(), b.made))}
	}
	s := &stored{queue: "default", done: make(chan error, 4**count)}
	var err error
	if s.store, err = store.Open(ctx, o); err != nil {
		return nil, err
	}
	b.open.add(s.store.Close)
	err = s.store.Start(ctx, store.Work{Queues: map[string]int{s.queue: bareWorkers}, Kinds: []string{"empty"}, Do: func(ctx context.Context, j store.Job) {
		s.done <- s.store.Finish(ctx, store.Held{ID: j.ID, Attempt: j.Attempt}, store.Completed(nil), nil)
	}})
	if err != nil {
		return nil, err
	}
	b.open.add(func() error { return s.store.Stop(context.Background()) })
	return s, s.store.Pause(ctx, s.queue)
}

func (s *stored) insert(ctx context.Context, n int) error {
	jobs := make([]store.New, n)
	for i := range jobs {
		jobs[i] = store.New{Kind: "empty", Queue: s.queue, Priority: 2, MaxAttempts: 10, Body: []byte(content)}
	}
	_, err := s.store.Insert(ctx, jobs)
	return err
}

// work lets what waits be done, and pauses the queue afterwards.
func (s *stored) work(ctx context.Context, n int) (time.Duration, error) {
	at := time.Now()
	if err := s.store.Resume(ctx, s.queue); err != nil {
		return 0, err
	}
	for range n { // told once it is completed in the database
		select {
		case err := <-s.done:
			if err != nil {
				return 0, err
			}
		case <-time.After(time.Minute):
			return 0, errors.New("the store did not complete its jobs within a minute")
		}
	}
	took := time.Since(at)
	return took, s.store.Pause(ctx, s.queue)
}
