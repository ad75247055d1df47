package identity

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long the files must be quiet before they are read: a
	// certificate and its key are written one after the other.
	settle = 100 * time.Millisecond
	// patience bounds how long files that are written all the time are waited
	// for.
	patience = 2 * time.Second
	// doubt is when files that don't fit are read a second time, before they
	// are refused: the other half may come late.
	doubt = time.Second
	// lookAgain bounds how late a change is seen that no event told of.
	lookAgain = 30 * time.Second
	// maxLinks is how many symlinks are followed, as Linux does.
	maxLinks = 40
)

// watch sees files change in every way they do: written in place, renamed
// over, and by the symlinks of a Kubernetes Secret.
type watch struct {
	paths  []string
	events *fsnotify.Watcher // nil: the system has no watch left, only looking helps
}

func newWatch(paths []string) (*watch, error) {
	w := &watch{}
	for _, path := range paths {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, fmt.Errorf("can't watch %s: %w", path, err)
		}
		w.paths = append(w.paths, path)
	}
	// Linux lets a user have 128 of them; the looks go on without.
	if events, err := fsnotify.NewWatcher(); err == nil {
		w.events = events
		w.follow()
	}
	return w, nil
}

// run reads the files again whenever they may have changed, until ctx ends.
// seen is what the source uses.
func (w *watch) run(ctx context.Context, s *Source, seen digest) {
	var events <-chan fsnotify.Event
	var errs <-chan error
	if w.events != nil {
		defer w.events.Close()
		events, errs = w.events.Events, w.events.Errors
	}
	steps := w.follow()
	timer := time.NewTimer(settle) // what changed before the watch stood is seen too
	defer timer.Stop()
	var first time.Time   // of the events since the last look
	var doubted string    // the error of the last look, if it failed
	var doubtAt time.Time // when it was seen first
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			if !steps[filepath.Clean(event.Name)] {
				continue
			}
			if first.IsZero() {
				first = time.Now()
			}
			timer.Reset(min(settle, max(0, patience-time.Since(first))))
		case <-errs: //nolint:errcheck // whatever was lost, a look finds it
			timer.Reset(settle)
		case <-timer.C:
			first = time.Time{}
			steps = w.follow()
			m, now, err := s.readFiles(time.Now())
			next := lookAgain
			switch {
			case err == nil && now == seen:
				s.problem.Store(nil) // what was refused has been taken back
				doubted = ""
			case err == nil:
				s.use(m)
				seen, doubted = now, ""
			case now == seen: // it has expired meanwhile, and no other came
				s.report(err, "TLS identity has expired and was not replaced")
				doubted = ""
			case err.Error() != doubted:
				doubted, doubtAt, next = err.Error(), time.Now(), doubt
			case time.Since(doubtAt) < doubt: // an event came in between
				next = doubt - time.Since(doubtAt)
			default:
				s.refuse(err)
			}
			timer.Reset(next)
		}
	}
}

// follow watches the folder of every step that leads to a file, and returns the
// steps: the path itself, the symlinks on the way and the folders that they are
// in. Any of them that changes may lead to another file.
func (w *watch) follow() map[string]bool {
	steps := make(map[string]bool)
	add := func(step string) {
		steps[step] = true
		if w.events != nil {
			// Adding again what is watched costs nothing, and watches a folder
			// anew that was deleted and made again. One that is gone is looked
			// for again at the next look.
			_ = w.events.Add(filepath.Dir(step))
		}
	}
	for _, path := range w.paths {
		steps[filepath.Dir(path)] = true
		for range maxLinks {
			add(path)
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
	}
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
