//go:build linux

package tasks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/task"
)

// fault is something that happens to a store and passes.
type fault struct {
	begin, end func()
	lasts      time.Duration
	// why are words of which one at least must stand in /readyz?verbose and in what
	// `outrigger task queues` prints.
	why []string
}

// submits is what came of submits while a store was in trouble.
type submits struct {
	accepted, refused int
	slowest           time.Duration
	last              error
}

// submitFor submits http tasks one after another for a time. One that is refused
// must be refused plainly; one that is accepted is held against the agent.
func submitFor(t *testing.T, w *world, client *task.Client, name string, d time.Duration) (s submits) {
	t.Helper()
	over := time.Now().Add(d)
	for i := 0; time.Now().Before(over); i++ {
		work := fmt.Sprintf("%s-%d", name, i)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		at := time.Now()
		one, err := client.Submit(ctx, w.httpWork(work), task.Options{})
		cancel()
		s.slowest = max(s.slowest, time.Since(at))
		if err == nil {
			s.accepted++
			w.accept(work, accepted{id: one.GetId(), effects: []string{work}})
		} else {
			s.refused++
			s.last = err
			if reason := reasonOf(err); status.Code(err) != codes.Unavailable || reason != "TASK_STORE" {
				t.Errorf("a submit was refused with %v (reason %q), want UNAVAILABLE and TASK_STORE", err, reason)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return s
}

func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// says fails unless a text has one of the words.
func says(t *testing.T, what, text string, words []string) {
	t.Helper()
	for _, word := range words {
		if strings.Contains(strings.ToLower(text), word) {
			return
		}
	}
	t.Errorf("%s does not say why (one of %q):\n%s", what, words, text)
}

// endure lets a fault happen to a running agent's store: submits must be refused,
// calls through the relay must not notice, and all is well afterwards by itself.
func endure(t *testing.T, w *world, a *agent, f fault) {
	t.Helper()
	client := a.dial()
	well := submitFor(t, w, client, "before", 300*time.Millisecond)
	if well.accepted == 0 || well.refused > 0 {
		t.Fatalf("before: %+v", well)
	}
	relay := a.callThrough(200)
	before, _, _ := a.get("/readyz?verbose")

	f.begin()
	at := time.Now()
	during := submitFor(t, w, client, "during", f.lasts)
	page, code, err := a.get("/readyz?verbose")
	if err != nil {
		t.Fatal(err)
	}
	queues := a.cli("task", "queues")
	f.end()
	ended := time.Now()

	t.Logf("during %v: %d submits accepted, %d refused, the slowest answer took %v, the last: %v", ended.Sub(at).Round(100*time.Millisecond), during.accepted, during.refused, during.slowest.Round(time.Millisecond), during.last)
	if during.refused == 0 {
		t.Errorf("no submit was refused: the fault did not reach the agent, or what is accepted is not written")
	}
	says(t, "/readyz?verbose", page, f.why)
	if code != 200 {
		t.Errorf("/readyz answers %d: calls are served all the same, want 200", code)
	}
	says(t, "`outrigger task queues`", queues, f.why)
	t.Logf("task queues said: %s", strings.TrimSpace(queues))
	for line := range strings.Lines(page) {
		if !strings.Contains(before, line) {
			t.Logf("readyz said: %s", strings.TrimSpace(line))
		}
	}

	within(t, 30*time.Second, "submits are accepted again", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		one, err := client.Submit(ctx, w.httpWork("again"), task.Options{Key: "again"})
		if err == nil {
			w.accept("again", accepted{id: one.GetId(), effects: []string{"again"}})
		}
		return err
	})
	t.Logf("submits were accepted again %v after the fault was over", time.Since(ended).Round(10*time.Millisecond))
	after := submitFor(t, w, client, "after", 300*time.Millisecond)
	if after.refused > 0 || after.accepted == 0 {
		t.Errorf("after: %+v", after)
	}
	w.settle(t, client, time.Minute)
	within(t, 10*time.Second, "/readyz?verbose is as it was", func() error {
		now, _, err := a.get("/readyz?verbose")
		if err == nil && strings.Count(now, "[!]") != strings.Count(before, "[!]") {
			err = errors.New(now)
		}
		return err
	})
	relay.check(t)
	if t.Failed() {
		t.Logf("%s's log:\n%s", a.name, a.tail())
	}
}

// root skips what an ordinary user may not do.
func root(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: " + what + " needs root")
	}
}

// smallDisk mounts a file system in memory of so many bytes.
func smallDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	root(t, "a disk that fills up")
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("SKIPPED: can't mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zeroes := make([]byte, 4096)
	for {
		if _, err := f.Write(zeroes); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestADiskThatFillsUp(t *testing.T) {
	dir := smallDisk(t, 16<<20)
	w := newWorld(t)
	a := configure(t, "the agent", w, block(w, sqlite(filepath.Join(dir, "tasks.db"))))
	a.start()
	filler := filepath.Join(dir, "filler")
	endure(t, w, a, fault{
		begin: func() { fill(t, filler) },
		end: func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		},
		lasts: some(3*time.Second, 10*time.Second),
		why:   []string{"full", "no space"},
	})
}

// immutableFlag is FS_IMMUTABLE_FL of linux/fs.h, which x/sys/unix lacks.
const immutableFlag = 0x10

// immutable makes files read-only even for root, or ordinary ones again.
func immutable(t *testing.T, on bool, paths ...string) {
	t.Helper()
	for _, path := range paths {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err == nil {
			if flags &^= immutableFlag; on {
				flags |= immutableFlag
			}
			err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags)
		}
		f.Close()
		if err != nil {
			t.Skipf("SKIPPED: this file system can't make a file read-only for root: %v", err)
		}
	}
}

func TestAFileThatTurnsReadOnly(t *testing.T) {
	root(t, "a file that turns read-only under a running process")
	w := newWorld(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "tasks.db")
	a := configure(t, "the agent", w, block(w, sqlite(path)))
	a.start()
	// "-shm" is mapped into memory: its page that can't be written is a fault of the
	// process, which the driver has to catch.
	files := []string{path, path + "-wal", path + "-shm", dir}
	t.Cleanup(func() { immutable(t, false, files...) })
	endure(t, w, a, fault{
		begin: func() { immutable(t, true, files...) },
		end:   func() { immutable(t, false, files...) },
		lasts: some(3*time.Second, 10*time.Second),
		why:   []string{"read-only", "readonly", "not permitted", "permission", "disk i/o error", "can't be written"},
	})
}

// An agent whose store can't be opened serves calls, says why, and opens it once it
// can.
func TestAFolderThatIsReadOnlyAtTheStart(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "tasks.db")
	shut := func() { immutable(t, true, dir) }
	open := func() { immutable(t, false, dir) }
	if os.Getuid() != 0 { // for whom a folder's mode is enough
		shut = func() { _ = os.Chmod(dir, 0o500) }
		open = func() { _ = os.Chmod(dir, 0o700) }
	}
	t.Cleanup(open)
	shut()
	a := configure(t, "the agent", w, block(w, sqlite(path)))
	a.spawn()
	a.ready()
	late(t, w, a, open, []string{"read-only", "readonly", "not permitted", "permission", "unable to open"})
}

// late is an agent that started without its store: calls go through the relay, and
// submits are refused until it is there.
func late(t *testing.T, w *world, a *agent, mend func(), why []string) {
	t.Helper()
	client := a.dial()
	relay := a.callThrough(200)

	during := submitFor(t, w, client, "during", some(2*time.Second, 5*time.Second))
	page, code, err := a.get("/readyz?verbose")
	if err != nil {
		t.Fatal(err)
	}
	queues := a.cli("task", "queues")
	mend()
	mended := time.Now()

	t.Logf("without a store: %d submits accepted, %d refused, the slowest answer took %v, the last: %v", during.accepted, during.refused, during.slowest.Round(time.Millisecond), during.last)
	if during.refused == 0 || during.accepted > 0 {
		t.Errorf("%+v; want all refused", during)
	}
	says(t, "/readyz?verbose", page, why)
	if code != 200 {
		t.Errorf("/readyz answers %d: calls are served all the same, want 200", code)
	}
	says(t, "`outrigger task queues`", queues, why)
	within(t, 40*time.Second, "submits are accepted", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		one, err := client.Submit(ctx, w.httpWork("again"), task.Options{Key: "again"})
		if err == nil {
			w.accept("again", accepted{id: one.GetId(), effects: []string{"again"}})
		}
		return err
	})
	t.Logf("submits were accepted %v after the store was there", time.Since(mended).Round(10*time.Millisecond))
	if after := submitFor(t, w, client, "after", 300*time.Millisecond); after.refused > 0 {
		t.Errorf("after: %+v", after)
	}
	w.settle(t, client, time.Minute)
	relay.check(t)
	if t.Failed() {
		t.Logf("%s's log:\n%s", a.name, a.tail())
	}
}

func TestADatabaseThatAnotherProcessLocks(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "tasks.db")
	a := configure(t, "the agent", w, block(w, sqlite(path)))
	a.start()
	var unlock func()
	endure(t, w, a, fault{
		begin: func() {
			var said string
			if said, unlock = lock(t, path); said != "locked" {
				t.Fatal(said)
			}
		},
		end:   func() { unlock() },
		lasts: some(8*time.Second, 20*time.Second),
		why:   []string{"locked", "busy"},
	})
}

// A database that is locked when the agent starts.
func TestADatabaseThatIsLockedAtTheStart(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "tasks.db")
	a := configure(t, "the agent", w, block(w, sqlite(path)))
	a.start()
	first := w.submitHTTP(t, a.dial(), numbered("first", 20))
	a.kill()
	said, unlock := lock(t, path)
	if said != "locked" {
		t.Fatal(said)
	}
	t.Cleanup(unlock)
	a.spawn()
	a.ready()
	late(t, w, a, unlock, []string{"locked", "busy"})
	completed(t, a.dial(), first, 20*time.Second)
}

func TestAPostgresThatIsStoppedAndComesBack(t *testing.T) {
	for _, row := range []struct {
		name string
		how  syscall.Signal
	}{{"shut down", syscall.SIGINT}, {"ended at once", syscall.SIGQUIT}} {
		t.Run(row.name, func(t *testing.T) {
			c, w := startPostgres(t), newWorld(t)
			a := configure(t, "the agent", w, block(w, onPostgres(c)))
			a.start()
			endure(t, w, a, fault{
				begin: func() { c.stop(row.how) },
				end:   c.start,
				lasts: some(5*time.Second, 30*time.Second),
				why:   []string{"connect", "refused", "shut", "terminat"},
			})
		})
	}
}

// PostgreSQL goes away while clients submit and tasks run: what was acknowledged is
// done.
func TestAPostgresThatGoesAwayUnderLoad(t *testing.T) {
	c, w := startPostgres(t), newWorld(t)
	seed, random := seeded(t)
	a := configure(t, "the agent", w, block(w, onPostgres(c)))
	a.start()
	client := a.dial()
	l := startLoad(t, w, client, seed, 8)
	relay := a.callThrough(100)
	for range some(2, 6) {
		time.Sleep(time.Second + time.Duration(random.Int64N(int64(time.Second))))
		c.stop([]syscall.Signal{syscall.SIGINT, syscall.SIGQUIT}[random.IntN(2)])
		time.Sleep(time.Second + time.Duration(random.Int64N(int64(2*time.Second))))
		c.start()
	}
	time.Sleep(2 * time.Second)
	l.stop()
	relay.check(t)
	for text, n := range l.odd {
		t.Errorf("%d submits failed and not with UNAVAILABLE: %s", n, text)
	}
	t.Logf("%d submits had to be repeated, %d of those were there already", l.again.Load(), l.existed.Load())
	w.settle(t, client, 2*time.Minute)
}

func TestAPostgresThatIsNotThereAtTheStart(t *testing.T) {
	c, w := startPostgres(t), newWorld(t)
	c.stop(syscall.SIGINT)
	a := configure(t, "the agent", w, block(w, onPostgres(c)))
	a.spawn()
	a.ready()
	late(t, w, a, c.start, []string{"connect", "refused"})
}

// A file that is not a database is refused, and left as it is: no waiting mends it.
func TestAFileThatIsNoDatabaseIsRefusedAndLeftAlone(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(t.TempDir(), "tasks.db")
	content := strings.Repeat("this is somebody's diary, and no database at all\n", 100)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	a := configure(t, "the agent", w, block(w, sqlite(path)))

	a.spawn()

	select {
	case <-a.exited:
	case <-time.After(30 * time.Second):
		t.Error("the agent goes on")
	}
	says(t, "the agent's log", a.tail(), []string{"no sqlite database"})
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		t.Errorf("the file was changed: %d bytes now, %v", len(got), err)
	}
}
