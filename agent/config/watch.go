package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the file must be quiet before it is read: an editor
	// writes in several steps.
	settle = 100 * time.Millisecond
	// patience bounds how long a file that is written all the time is waited
	// for.
	patience = 2 * time.Second
	// lookAgain bounds how late a change is seen that no event told of.
	lookAgain = 30 * time.Second
	// maxLinks is how many symlinks are followed, as Linux does.
	maxLinks = 40
)

// Watch calls changed whenever the content of the file at path is another one
// than before, at first than seen, until ctx ends. It follows a file that is
// replaced: an editor's rename, the symlinks of a Kubernetes ConfigMap, a
// symlink into another folder. A file that is gone or empty for the moment, as
// between two steps of an editor, is no change. changed is called on Watch's
// own goroutine. The error is of setting up the watch.
func Watch(ctx context.Context, path string, seen Digest, changed func()) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("can't watch %s: %w", path, err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("can't watch %s: %w", path, err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("can't watch the folder of %s: %w", path, err)
	}
	steps := follow(watcher, path)
	timer := time.NewTimer(settle) // what changed before the watch stood is seen too
	defer timer.Stop()
	var first time.Time // of the events since the last look
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-watcher.Events:
			if !steps[filepath.Clean(event.Name)] {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(settle, max(0, patience-time.Since(first))))
		case <-watcher.Errors: //nolint:errcheck // whatever was lost, a look finds it
			timer.Reset(settle) // events were lost: look
		case <-timer.C:
			first = time.Time{}
			steps = follow(watcher, path)
			if now := digest(path); now != seen && now != (Digest{}) {
				seen = now
				changed()
			}
			timer.Reset(lookAgain)
		}
	}
}

// follow watches the folder of every step that leads to the file, and returns
// the steps: the path itself, the symlinks on the way and the folders that
// they are in. Any of them that changes may lead to another file.
func follow(watcher *fsnotify.Watcher, path string) map[string]bool {
	steps := make(map[string]bool)
	add := func(step string) {
		steps[step] = true
		// Adding again what is watched costs nothing, and watches a folder
		// anew that was deleted and made again. One that is gone is looked for
		// again at the next look.
		_ = watcher.Add(filepath.Dir(step))
	}
	add(path)
	steps[filepath.Dir(path)] = true
	for range maxLinks {
		link, rest := firstLink(path)
		if link == "" {
			break
		}
		add(link)
		target, err := os.Readlink(link)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(link), target)
		}
		path = filepath.Join(target, rest)
	}
	add(path)
	return steps
}

// firstLink returns the outermost symlink on the way to path, and the way from
// it on; empty where there is none.
func firstLink(path string) (link, rest string) {
	for step := path; ; step = filepath.Dir(step) {
		if info, err := os.Lstat(step); err == nil && info.Mode()&os.ModeSymlink != 0 {
			link = step
		}
		if step == filepath.Dir(step) {
			break
		}
	}
	if link == "" {
		return "", ""
	}
	rest, err := filepath.Rel(link, path)
	if err != nil {
		return "", ""
	}
	return link, rest
}

// Digest tells contents of files apart.
type Digest [sha256.Size]byte

// digest is zero for a file that can't be read or holds nothing.
func digest(path string) Digest {
	data, err := readFile(path)
	if err != nil || len(bytes.TrimSpace(data)) == 0 {
		return Digest{}
	}
	return sha256.Sum256(data)
}
