package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/outrigger-rpc/outrigger/test/postgres"
)

// server is the PostgreSQL that the tests share; nil: there is none here.
var server *postgres.Server

var absent error

func TestMain(m *testing.M) {
	if server, absent = postgres.Start(); absent != nil {
		server = nil
		fmt.Fprintln(os.Stderr, "SKIPPED for PostgreSQL:", absent)
		if !errors.Is(absent, postgres.ErrAbsent) {
			os.Exit(1)
		}
	}
	code := m.Run()
	if server != nil {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shelf is a store of a test, in one of the databases.
type shelf struct {
	*Store
	t       testing.TB
	options Options

	mu    sync.Mutex
	moved []Moved
	deaf  bool // moved stays empty
}

// everywhere runs a test in each database that there is.
func everywhere(t *testing.T, test func(t *testing.T, s *shelf)) {
	t.Run("SQLite", func(t *testing.T) { test(t, open(t, inFile(t))) })
	t.Run("PostgreSQL", func(t *testing.T) {
		if server == nil {
			t.Skip(absent)
		}
		test(t, open(t, inServer(t)))
	})
}

func inFile(t testing.TB) Options {
	return Options{SQLite: &SQLite{Path: filepath.Join(t.TempDir(), "tasks.db")}}
}

var schemas int

// inServer names a schema of the test's own.
func inServer(t testing.TB) Options {
	schemas++
	schema := fmt.Sprintf("test%d", schemas)
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.Connect(ctx, server.URL())
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(ctx) }()
		if _, err := conn.Exec(ctx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE"); err != nil {
			t.Error(err)
		}
	})
	return Options{Postgres: &Postgres{URL: server.URL(), Schema: schema}}
}

// open opens a store that is closed when the test ends.
func open(t testing.TB, o Options) *shelf {
	t.Helper()
	s := &shelf{t: t}
	if o.Lease == 0 {
		o.Lease = 2 * time.Second
	}
	o.Name, o.Logger = "test", slog.New(slog.NewTextHandler(t.Output(), nil))
	o.Moved = func(m Moved) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.deaf {
			s.moved = append(s.moved, m)
		}
	}
	s.options = o
	var err error
	if s.Store, err = Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.end)
	return s
}

// end stops and closes it, once.
func (s *shelf) end() {
	s.t.Helper()
	if s.Store == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(s.Stop(ctx), s.Close()); err != nil {
		s.t.Error(err)
	}
	s.Store = nil
}

// start runs the jobs of kind "echo" in the queue "default".
func (s *shelf) start(workers int, do func(ctx context.Context, j Job)) {
	s.t.Helper()
	if err := s.Start(s.t.Context(), Work{Queues: map[string]int{"default": workers}, Kinds: []string{"echo"}, Do: do}); err != nil {
		s.t.Fatal(err)
	}
}

// insert keeps jobs of kind "echo" in the queue "default", where they say nothing
// else.
func (s *shelf) insert(jobs ...New) []Job {
	s.t.Helper()
	for i := range jobs {
		n := &jobs[i]
		if n.Kind == "" {
			n.Kind = "echo"
		}
		if n.Queue == "" {
			n.Queue = "default"
		}
		if n.MaxAttempts == 0 {
			n.MaxAttempts = 3
		}
	}
	inserted, err := s.Insert(context.Background(), jobs)
	if err != nil {
		s.t.Fatal(err)
	}
	all := make([]Job, len(inserted))
	for i, in := range inserted {
		all[i] = in.Job
	}
	return all
}

func (s *shelf) get(id int64) Job {
	s.t.Helper()
	j, err := s.Get(context.Background(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return j
}

// eventually waits until a job is in a state.
func (s *shelf) eventually(id int64, state State) Job {
	s.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		j := s.get(id)
		if j.State == state {
			return j
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("it is %+v, want %s", j, state)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// finish ends an attempt.
func (s *shelf) finish(j Job, o Outcome) {
	s.t.Helper()
	if err := s.Finish(context.Background(), Held{j.ID, j.Attempt}, o, nil); err != nil {
		s.t.Error(err)
	}
}

// lease leases from a queue for a second.
func (s *shelf) lease(queue, worker string, n int) []Job {
	s.t.Helper()
	jobs, err := s.Lease(context.Background(), LeaseRequest{Queues: []string{queue}, Worker: worker, Max: n, For: map[string]time.Duration{queue: time.Second}})
	if err != nil {
		s.t.Fatal(err)
	}
	return jobs
}
