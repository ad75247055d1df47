package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestTheFileIsItsOwnersAlone(t *testing.T) {
	o := inFile(t)
	open(t, o)

	info, err := os.Stat(o.SQLite.Path)

	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestASecondAgentOnOneFileIsRefused(t *testing.T) {
	o := inFile(t)
	open(t, o)

	_, err := Open(t.Context(), o)

	if err == nil || !strings.Contains(err.Error(), "is in use by another agent: a SQLite file is one agent's alone") {
		t.Error(err)
	}
}

func TestAFileThatCannotBeUsedIsRefused(t *testing.T) {
	dir := t.TempDir()
	noise := filepath.Join(dir, "noise.db")
	if err := os.WriteFile(noise, []byte(strings.Repeat("this is no database. ", 500)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		noise:                             "damaged, or no SQLite database",
		filepath.Join(dir, "no", "where"): "can't be opened",
		dir:                               "can't be opened",
	} {
		_, err := Open(t.Context(), Options{SQLite: &SQLite{Path: path}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

func TestTablesOfANewerProgramAreRefused(t *testing.T) {
	for _, test := range []struct{ statement, want string }{
		{"INSERT INTO outrigger_migration (version) VALUES (99)", "the task store's tables are of version 99, and this program knows 1 at most"},
		{"INSERT INTO river_migration (line, version) VALUES ('main', 99)", "the engine's tables are of version 99"},
	} {
		o := inFile(t)
		s := open(t, o)
		if err := s.exec.Exec(t.Context(), test.statement); err != nil {
			t.Fatal(err)
		}
		s.end()

		_, err := Open(t.Context(), o)

		var newer *NewerError
		if !errors.As(err, &newer) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

func TestWhatRanWhenTheAgentEndedRunsAgain(t *testing.T) {
	o := inFile(t)
	s := open(t, o)
	running := make(chan Job, 3)
	s.start(3, func(ctx context.Context, j Job) {
		running <- j
		<-ctx.Done()
	})
	in := s.insert(New{}, New{MaxAttempts: 1})
	leased := s.insert(New{Kind: "save", Queue: "save"})[0]
	s.lease("save", "w", 1)
	<-running
	<-running

	// The process ends without a word: as far as the file knows, both still run.
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := s.exec.Exec(t.Context(), "VACUUM INTO $1", copied); err != nil {
		t.Fatal(err)
	}
	next := open(t, Options{SQLite: &SQLite{Path: copied}, Lease: time.Hour})

	if j := next.get(in[0].ID); j.State != Available || j.Attempt != 1 || j.Failures[0].Error != "the agent ended while it ran" {
		t.Errorf("it is %+v", j)
	}
	if j := next.get(in[1].ID); j.State != Discarded {
		t.Errorf("it is %+v", j)
	}
	if j := next.get(leased.ID); j.State != Running {
		t.Errorf("what an app leased is %+v", j)
	}
	if next.Waiting("default") != 1 {
		t.Errorf("%d wait", next.Waiting("default"))
	}
	s.endAll(ErrStopping)
}

func TestAStopGivesBackWhatStillRuns(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		running := make(chan Job, 3)
		s.start(3, func(ctx context.Context, j Job) {
			running <- j
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), ErrStopping) {
				t.Errorf("it ended by %v", context.Cause(ctx))
			}
			s.finish(j, Snooze(time.Now(), "the agent stops"))
		})
		in := s.insert(New{})[0]
		<-running
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()

		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}

		if j := s.get(in.ID); j.State != Available || j.Attempt-j.Snoozes != 0 {
			t.Errorf("it is %+v", j)
		}
	})
}

func TestALockedFileRefusesAndRecovers(t *testing.T) {
	o := inFile(t)
	s := open(t, o)
	other, err := sql.Open("sqlite", o.SQLite.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}

	_, err = s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1}})

	var u *Unavailable
	if !errors.As(err, &u) || u.Why != "another process holds the task store's file locked" || s.Problem() != u.Why {
		t.Errorf("%v, problem %q", err, s.Problem())
	}
	if list, err := s.List(t.Context(), Filter{}); err != nil || len(list) != 0 {
		t.Errorf("reading: %v %v", list, err)
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	s.recovers()
	s.insert(New{})
}

// recovers waits until the store can be used again.
func (s *shelf) recovers() {
	s.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); s.Problem() != ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("it does not recover: %s", s.Problem())
		}
	}
}

func TestAServerThatIsGoneRefusesAndRecovers(t *testing.T) {
	if server == nil {
		t.Skip(absent)
	}
	o := inServer(t)
	o.Postgres.ConnectTimeout = time.Second
	s := open(t, o)
	ran := make(chan int64, 10)
	s.start(2, func(_ context.Context, j Job) {
		s.finish(j, Completed(nil))
		ran <- j.ID
	})
	s.insert(New{})
	<-ran
	if err := server.Stop(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}

	_, err := s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1}})
	var u *Unavailable
	if !errors.As(err, &u) || s.Problem() == "" {
		t.Errorf("%v, problem %q", err, s.Problem())
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	s.recovers()
	in := s.insert(New{})[0]
	if id := <-ran; id != in.ID {
		t.Errorf("%d ran, want %d", id, in.ID)
	}
}

func TestAServerThatIsNotThereYetIsWaitedFor(t *testing.T) {
	if server == nil {
		t.Skip(absent)
	}
	o := inServer(t)
	o.Postgres.ConnectTimeout = time.Second
	if err := server.Stop(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	s := open(t, o)
	ran := make(chan struct{}, 10)
	s.start(1, func(_ context.Context, j Job) {
		s.finish(j, Completed(nil))
		ran <- struct{}{}
	})
	if s.Problem() == "" {
		t.Error("nothing is said of a server that is not there")
	}
	if _, err := s.List(t.Context(), Filter{}); !isUnavailable(err) {
		t.Error(err)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	s.recovers()
	s.insert(New{})
	<-ran
}

func TestTwoAgentsShareTheWork(t *testing.T) {
	if server == nil {
		t.Skip(absent)
	}
	o := inServer(t)
	one, two := open(t, o), open(t, o)
	ran := make(chan string, 100)
	for name, s := range map[string]*shelf{"one": one, "two": two} {
		s.start(1, func(_ context.Context, j Job) {
			time.Sleep(20 * time.Millisecond)
			s.finish(j, Completed(nil))
			ran <- name
		})
	}
	one.insert(make([]New, 40)...)

	counts := make(map[string]int)
	for range 40 {
		counts[<-ran]++
	}

	if counts["one"] == 0 || counts["two"] == 0 {
		t.Errorf("%v", counts)
	}
}

func TestAnAgentThatIsSilentLosesItsJobs(t *testing.T) {
	if server == nil {
		t.Skip(absent)
	}
	o := inServer(t)
	o.Lease = time.Second
	frozen := open(t, o)
	held := make(chan Job, 1)
	release := make(chan error, 1)
	frozen.start(1, func(_ context.Context, j Job) {
		held <- j
		release <- frozen.Finish(context.Background(), Held{j.ID, j.Attempt}, <-wake, nil)
	})
	in := frozen.insert(New{})[0]
	<-held

	// It writes no signs of life any more, as a process that is frozen doesn't.
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	frozen.self += "-renamed"
	if _, err := conn.Exec(t.Context(), "UPDATE "+o.Postgres.Schema+".outrigger_agent SET seen = 0"); err != nil {
		t.Fatal(err)
	}
	other := open(t, o)
	ran := make(chan Job, 1)
	other.start(1, func(_ context.Context, j Job) {
		other.finish(j, Completed([]byte("other")))
		ran <- j
	})

	if j := <-ran; j.ID != in.ID || j.Attempt != 2 || j.Failures[0].Error != "the agent that ran it gave no sign of life" {
		t.Errorf("%+v", j)
	}
	wake <- Completed([]byte("frozen"))
	if err := <-release; !errors.Is(err, ErrLost) {
		t.Error(err)
	}
	if j := other.get(in.ID); string(j.Output) != "other" {
		t.Errorf("%+v", j)
	}
}

// wake lets a job that hangs end.
var wake = make(chan Outcome)

func TestAFileThatIsLockedAtTheStartIsWaitedFor(t *testing.T) {
	o := inFile(t)
	open(t, o).end()
	other, err := sql.Open("sqlite", o.SQLite.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}

	s := open(t, o)
	ran := make(chan int64, 1)
	s.start(1, func(_ context.Context, j Job) {
		s.finish(j, Completed(nil))
		ran <- j.ID
	})
	_, err = s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1}})

	if s.Problem() != "another process holds the task store's file locked" || !isUnavailable(err) {
		t.Errorf("problem %q, and an insert gives %v", s.Problem(), err)
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	s.recovers()
	if in := s.insert(New{})[0]; <-ran != in.ID {
		t.Error("another job ran")
	}
}
