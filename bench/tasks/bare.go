package main

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	_ "modernc.org/sqlite" // the driver by that name
)

// emptyArgs are the arguments of a job with nothing to do, as large as a small
// task's.
type emptyArgs struct {
	Content string `json:"content"`
}

func (emptyArgs) Kind() string { return "empty" }

// bareWorkers is how many jobs each executor runs at once.
const bareWorkers = 100

// bare is River as it is, without anything of ours.
type bare interface {
	insert(ctx context.Context) error
	insertMany(ctx context.Context, n int) error
	// work runs what waits until n jobs are completed, and says how long it took.
	work(ctx context.Context, n int) (time.Duration, error)
	// latency starts an executor with River's own defaults and returns how long
	// after each insert its job began.
	latency(ctx context.Context, n int) ([]time.Duration, error)
}

// newBare opens a database of its own for bare River, with the durability that the
// agent has.
func (b *bench) newBare(ctx context.Context) (bare, error) {
	b.made++
	if b.server != nil {
		name := fmt.Sprintf("bare%d_%d", time.Now().UnixNano(), b.made)
		if err := b.server.Create(name); err != nil {
			return nil, err
		}
		config, err := pgxpool.ParseConfig(b.server.URLOf(name))
		if err != nil {
			return nil, err
		}
		config.MaxConns = postgresConnections
		pool, err := pgxpool.NewWithConfig(ctx, config)
		if err != nil {
			return nil, err
		}
		b.open.add(func() error { pool.Close(); return nil })
		return migrated(ctx, riverpgxv5.New(pool))
	}
	// As River's documentation has it: one connection.
	path := filepath.Join(b.dir, fmt.Sprintf("bare-%d-%d.db", time.Now().UnixNano(), b.made))
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	b.open.add(db.Close)
	return migrated(ctx, riversqlite.New(db))
}

// bareRiver is bare over one kind of database.
type bareRiver[TTx any] struct {
	driver riverdriver.Driver[TTx]
	client *river.Client[TTx] // inserts alone
}

func migrated[TTx any](ctx context.Context, driver riverdriver.Driver[TTx]) (bare, error) {
	m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if _, err := m.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	client, err := river.NewClient(driver, &river.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return &bareRiver[TTx]{driver, client}, nil
}

func (r *bareRiver[TTx]) insert(ctx context.Context) error {
	_, err := r.client.Insert(ctx, emptyArgs{content}, nil)
	return err
}

func (r *bareRiver[TTx]) insertMany(ctx context.Context, n int) error {
	many := make([]river.InsertManyParams, n)
	for i := range many {
		many[i] = river.InsertManyParams{Args: emptyArgs{content}}
	}
	_, err := r.client.InsertMany(ctx, many)
	return err
}

// executor starts a client that works, and returns how to stop it.
func (r *bareRiver[TTx]) executor(ctx context.Context, config *river.Config, do func()) (stop func() error, ended <-chan *river.Event, err error) {
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, river.WorkFunc(func(context.Context, *river.Job[emptyArgs]) error {
		do()
		return nil
	})); err != nil {
		return nil, nil, err
	}
	config.Workers = workers
	config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: bareWorkers}}
	config.Logger = slog.New(slog.DiscardHandler)
	client, err := river.NewClient(r.driver, config)
	if err != nil {
		return nil, nil, err
	}
	events, cancel := client.SubscribeConfig(&river.SubscribeConfig{Kinds: []river.EventKind{river.EventKindJobCompleted}, ChanSize: 2 * *count})
	if err := client.Start(ctx); err != nil {
		return nil, nil, err
	}
	return func() error { defer cancel(); return client.Stop(ctx) }, events, nil
}

func (r *bareRiver[TTx]) work(ctx context.Context, n int) (time.Duration, error) {
	began := time.Now()
	// The settings of River's own benchmark, since its defaults fetch ten times a
	// second at most.
	stop, ended, err := r.executor(ctx, &river.Config{FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond}, func() {})
	if err != nil {
		return 0, err
	}
	for range n { // told once it is completed in the database
		select {
		case e := <-ended:
			if e.Job.State != rivertype.JobStateCompleted {
				return 0, fmt.Errorf("a job is %s", e.Job.State)
			}
		case <-time.After(time.Minute):
			return 0, fmt.Errorf("bare River did not complete %d jobs within a minute", n)
		}
	}
	took := time.Since(began)
	return took, stop()
}

func (r *bareRiver[TTx]) latency(ctx context.Context, n int) ([]time.Duration, error) {
	started := make(chan time.Time, 1)
	var open atomic.Bool
	stop, _, err := r.executor(ctx, &river.Config{}, func() {
		if open.Load() {
			started <- time.Now()
		}
	})
	if err != nil {
		return nil, err
	}
	open.Store(true)
	var took []time.Duration
	for range n {
		time.Sleep(idle)
		at := time.Now()
		if err := r.insert(ctx); err != nil {
			return nil, err
		}
		select {
		case began := <-started:
			took = append(took, began.Sub(at))
		case <-time.After(10 * time.Second):
			return nil, fmt.Errorf("bare River did not begin a job within 10 s")
		}
	}
	open.Store(false)
	return took, stop()
}
