package config

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watching starts a watch of the path and returns what it says.
func watching(t *testing.T, path string) <-chan struct{} {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan struct{}, 100), make(chan error, 1)
	go func() { done <- Watch(ctx, path, digest(path), func() { changes <- struct{}{} }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	time.Sleep(2 * settle) // the watch stands
	return changes
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func seen(t *testing.T, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
	case <-time.After(5 * time.Second):
		t.Fatal("the change was not seen")
	}
}

func TestWatchSeesEveryWayToChangeAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	write(t, path, "a")
	changes := watching(t, path)

	write(t, path, "b") // in place
	seen(t, changes)

	write(t, path+".new", "c") // an editor's rename
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	seen(t, changes)

	if err := os.Remove(path); err != nil { // gone and back
		t.Fatal(err)
	}
	time.Sleep(2 * settle)
	write(t, path, "d")
	seen(t, changes)
}

func TestWatchFollowsAConfigMap(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, version, "c.yaml"), version)
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("1", "..data")
	link("..data/c.yaml", "c.yaml")
	changes := watching(t, filepath.Join(dir, "c.yaml"))

	link("2", "..data_tmp")
	if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}

	seen(t, changes)
}

func TestWatchSaysNothingOfTheSameContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "a")
	changes := watching(t, path)

	write(t, path, "a")

	unseen(t, changes)
}

func TestWatchSeesWhatChangedBeforeItStood(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "new")
	ctx, cancel := context.WithCancel(context.Background())
	changes, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- Watch(ctx, path, Digest{1}, func() { changes <- struct{}{} }) }()

	seen(t, changes)

	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func unseen(t *testing.T, changes <-chan struct{}) {
	t.Helper()
	select {
	case <-changes:
		t.Fatal("a change was reported")
	case <-time.After(4 * settle):
	}
}

func TestWatchWaitsForAFileThatIsEmptyForTheMoment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	write(t, path, "a")
	changes := watching(t, path)

	write(t, path, "\n") // truncated; an empty configuration would end every service
	unseen(t, changes)
	write(t, path, "b")
	seen(t, changes)
}

func TestWatchFollowsALinkIntoAnotherFolder(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	path, target := filepath.Join(here, "c.yaml"), filepath.Join(there, "real.yaml")
	write(t, target, "a")
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
	changes := watching(t, path)

	write(t, target, "b")
	seen(t, changes)

	other := filepath.Join(t.TempDir(), "other.yaml")
	write(t, other, "c")
	if err := os.Symlink(other, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	seen(t, changes)

	write(t, other, "d") // the folder that it is in now is watched
	seen(t, changes)
}

func TestWatchIsNotHeldUpByOtherFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	write(t, path, "a")
	changes := watching(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			_ = os.WriteFile(filepath.Join(dir, "busy.log"), []byte(time.Now().String()), 0o600)
			time.Sleep(settle / 10)
		}
	}()

	write(t, path, "b")

	seen(t, changes)
	cancel()
	<-stopped
}

func TestWatchOfAFolderThatIsNotThere(t *testing.T) {
	err := Watch(context.Background(), filepath.Join(t.TempDir(), "no", "c.yaml"), Digest{}, func() {})
	if err == nil {
		t.Fatal("want an error")
	}
}
