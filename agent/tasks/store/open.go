package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
)

// Options say where jobs are kept. One of SQLite and Postgres must be set.
type Options struct {
	SQLite   *SQLite
	Postgres *Postgres
	// Lease is how long after its last sign of life an agent's jobs run elsewhere.
	// Zero: 30 s.
	Lease time.Duration
	// Retention is how long jobs are kept after they ended. Zero fields: a day, and
	// a week for those that were given up.
	Retention Retention
	// Name of this agent, shown as Job.Worker with a random part of the process.
	// Empty: "agent".
	Name string
	// Moved hears of every change of state that this process made. It must not
	// block. nil: nobody does.
	Moved func(Moved)
	// Logger hears of what fails. nil: nobody does.
	Logger *slog.Logger
}

// SQLite is an embedded database file, of one process alone.
type SQLite struct {
	// Path of the file, made where it is missing.
	Path string
	// Normal: a power loss may take the last commits. Otherwise none is lost.
	Normal bool
}

// Postgres is a PostgreSQL database.
type Postgres struct {
	// URL with its password.
	URL string
	// Schema of the tables, made where it is missing. Empty: outrigger.
	Schema string
	// MaxConnections. Zero: 10.
	MaxConnections int
	// ConnectTimeout bounds a connect, and how long a submit waits for a server
	// that is gone. Zero: 5 s.
	ConnectTimeout time.Duration
}

// Retention is how long jobs are kept after they ended.
type Retention struct{ Completed, Cancelled, Failed time.Duration }

func (o Options) withDefaults() Options {
	orTime := func(d *time.Duration, fallback time.Duration) {
		if *d == 0 {
			*d = fallback
		}
	}
	orTime(&o.Lease, 30*time.Second)
	orTime(&o.Retention.Completed, 24*time.Hour)
	orTime(&o.Retention.Cancelled, 24*time.Hour)
	orTime(&o.Retention.Failed, 7*24*time.Hour)
	if o.Name == "" {
		o.Name = "agent"
	}
	if o.Moved == nil {
		o.Moved = func(Moved) {}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Store keeps jobs. Make it with Open. Safe for concurrent use.
//
// It speaks to the database by River's driver interface, which River does not
// promise to keep as it is: its version is pinned.
type Store struct {
	options Options
	logger  *slog.Logger
	self    string // this process, as River's client ID
	ids     ids
	dialect dialect
	backend backend

	exec    riverdriver.Executor // writes
	read    *sql.DB              // reads
	engine  engine               // nil before Start
	hub     *hub
	alarms  *alarms
	writer  *writer
	waiting waiting
	health  health
	stats   counters
	queues  queueCache
	tenants tenants

	slots slots

	setting sync.Mutex // held by SetQueues
	mu      sync.Mutex
	work    *Work
	running map[int64]*run // jobs that were fetched for Work.Do
	// fetching counts fetches under way, and which jobs were cancelled meanwhile that
	// they may bring.
	fetching struct {
		n         int
		cancelled map[int64]bool
	}

	stop      context.CancelFunc // ends what runs in the background
	stopped   context.Context
	goroutine sync.WaitGroup
	stopping  atomic.Bool
}

// engine is a River client, whatever its transactions are.
type engine interface {
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	StopAndCancel(ctx context.Context) error
	Queues() *river.QueueBundle
}

// backend is what differs in how a database is opened and closed.
type backend interface {
	// open connects and returns what reads and writes.
	open(ctx context.Context) (write riverdriver.Executor, read *sql.DB, err error)
	// migrate brings the tables to the version that this program knows.
	migrate(ctx context.Context) error
	// client makes a River client that runs jobs.
	client(s *Store, config *river.Config) (engine, error)
	// writers is how many transactions of writes may be under way.
	writers() int
	// fetch calls do with what fetches jobs that are run here.
	fetch(ctx context.Context, do func(riverdriver.Executor) error) error
	// listen hears what other agents tell, until the context ends.
	listen(ctx context.Context)
	close() error
}

// Open opens the database and brings its tables up to date. What no waiting mends is
// an error: a file that is no SQLite database, is where no folder is, or is in use by
// another agent, and a schema that is newer than this program. What may pass is not:
// a server that can't be reached, a file that is locked or read-only, a disk that is
// full. The store says so by Problem, refuses to accept anything, and goes on trying.
func Open(ctx context.Context, o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{options: o, logger: o.Logger, running: make(map[int64]*run)}
	random := make([]byte, 4)
	_, _ = rand.Read(random) // never fails
	s.self = o.Name + "-" + hex.EncodeToString(random)
	s.ids.init()
	s.hub = newHub()
	s.alarms = newAlarms(s.ring)
	s.fetching.cancelled = make(map[int64]bool)
	s.stopped, s.stop = context.WithCancel(context.Background())
	switch {
	case (o.SQLite == nil) == (o.Postgres == nil):
		return nil, errors.New("the task store is SQLite or PostgreSQL: want one of them")
	case o.SQLite != nil:
		s.dialect, s.backend = sqliteDialect{}, &sqliteBackend{options: *o.SQLite, store: s}
	default:
		s.dialect, s.backend = postgresDialect{}, &postgresBackend{options: o.Postgres.withDefaults(), store: s}
	}
	s.writer = newWriter(s)
	err := s.connect(ctx)
	if err != nil && !isUnavailable(err) {
		s.stop()
		return nil, errors.Join(err, s.backend.close())
	}
	if err != nil {
		s.health.set(err)
		s.goroutine.Go(s.reconnect)
	}
	s.goroutine.Go(func() { s.alarms.run(s.stopped) })
	for range s.backend.writers() {
		s.goroutine.Go(func() { s.writer.run(s.stopped) })
	}
	s.goroutine.Go(s.live)
	s.goroutine.Go(s.care)
	return s, nil
}

// connect opens the database.
func (s *Store) connect(ctx context.Context) error {
	write, read, err := s.backend.open(ctx)
	if err != nil {
		return err
	}
	s.exec, s.read = write, read
	if err := s.backend.migrate(ctx); err != nil {
		return explained(err)
	}
	if err := s.register(ctx); err != nil {
		return explained(err)
	}
	if err := s.giveBackAtStart(ctx); err != nil {
		return explained(err)
	}
	if err := s.count(ctx); err != nil {
		return explained(err)
	}
	s.health.opened.Store(true)
	s.health.set(nil)
	return nil
}

// reconnect tries until the database can be used, or the store closes.
func (s *Store) reconnect() {
	pause := 250 * time.Millisecond
	for {
		select {
		case <-s.stopped.Done():
			return
		case <-time.After(pause):
		}
		ctx, cancel := context.WithTimeout(s.stopped, connectPatience)
		err := s.connect(ctx)
		cancel()
		if err == nil {
			s.mu.Lock()
			work := s.work
			s.mu.Unlock()
			if work != nil {
				err = s.startEngine(s.stopped, *work)
			}
		}
		if err == nil {
			s.logger.Info("the task store can be used")
			return
		}
		s.health.set(err)
		pause = min(2*pause, 5*time.Second)
	}
}

// connectPatience bounds one try to open and migrate.
const connectPatience = 30 * time.Second

// Start begins to run jobs. Once.
func (s *Store) Start(ctx context.Context, w Work) error {
	s.mu.Lock()
	if s.work != nil {
		s.mu.Unlock()
		return errors.New("the task store was started already")
	}
	s.work = &w
	s.mu.Unlock()
	s.slots.set(w.Queues)
	if !s.health.opened.Load() {
		return nil // reconnect starts it
	}
	return s.startEngine(ctx, w)
}

func (s *Store) startEngine(ctx context.Context, w Work) error {
	config := s.riverConfig(w)
	engine, err := s.backend.client(s, config)
	if err != nil {
		return fmt.Errorf("the task executor can't run: %w", err)
	}
	// River's own work goes on when the caller's context ends: Stop ends it.
	if err := engine.Start(context.WithoutCancel(ctx)); err != nil {
		return explained(err)
	}
	s.mu.Lock()
	s.engine = engine
	s.mu.Unlock()
	s.goroutine.Go(func() { s.backend.listen(s.stopped) })
	return nil
}

// Stop stops fetching and lets running jobs end until ctx does; those left are
// told to stop (cause ErrStopping) and given back.
func (s *Store) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	s.mu.Lock()
	engine := s.engine
	s.engine = nil
	s.mu.Unlock()
	if engine == nil {
		return nil
	}
	err := engine.Stop(ctx)
	if err == nil {
		return nil
	}
	s.endAll(ErrStopping)
	last, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	return engine.StopAndCancel(last)
}

// stopPatience bounds how long jobs that were told to stop may take to say so.
const stopPatience = 5 * time.Second

// Close ends everything. Stop comes first, where Start was called.
func (s *Store) Close() error {
	s.stop()
	s.goroutine.Wait()
	return s.backend.close()
}

// SetQueues changes which queues are run here and how many of each at once, from
// the next fetch on: what runs goes on.
func (s *Store) SetQueues(_ context.Context, workers map[string]int) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	s.mu.Lock()
	if s.work == nil {
		s.mu.Unlock()
		return errors.New("the task store was not started")
	}
	old, engine := s.work.Queues, s.engine
	s.work.Queues = workers
	s.mu.Unlock()
	s.slots.set(workers)
	if engine == nil {
		return nil // River gets those of s.work when it starts
	}
	for name := range workers {
		err := engine.Queues().Add(name, river.QueueConfig{MaxWorkers: river.QueueNumWorkersMax})
		var known *river.QueueAlreadyAddedError
		if err != nil && !errors.As(err, &known) {
			return explained(err)
		}
		if workers[name] > old[name] {
			s.hub.publish(topicInsert, payload(insertPayload{name}))
		}
	}
	return nil
}
