package config

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the folder must be quiet before the file is read: an
	// editor writes in several steps.
	settle = 100 * time.Millisecond
	// lookAgain bounds how late a change is seen that no event told of.
	lookAgain = 30 * time.Second
)

// Watch calls changed whenever the content of the file at path is another one
// than before, seen at first, until ctx ends. It watches the folder, so that a file which is replaced (an
// editor's rename, the symlinks of a Kubernetes ConfigMap) is followed. A file
// that is gone for the moment is no change. changed is called on Watch's own
// goroutine. The error is of setting up the watch.
func Watch(ctx context.Context, path string, seen Digest, changed func()) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("configuration: can't watch %s: %w", path, err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("configuration: can't watch the folder of %s: %w", path, err)
	}
	last := seen
	timer := time.NewTimer(settle) // what changed before the watch stood is seen too
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			timer.Reset(settle)
		case <-watcher.Errors: //nolint:errcheck // whatever was lost, a look finds it
			timer.Reset(settle) // events were lost: look
		case <-timer.C:
			if now := digest(path); now != last && now != (Digest{}) {
				last = now
				changed()
			}
			timer.Reset(lookAgain)
		}
	}
}

// Digest tells contents of files apart.
type Digest [sha256.Size]byte

// digest is zero for a file that can't be read.
func digest(path string) Digest {
	data, err := os.ReadFile(path)
	if err != nil {
		return Digest{}
	}
	return sha256.Sum256(data)
}
