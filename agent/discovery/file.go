package discovery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// How often a file is looked at that no event told of, and one that is wrong.
const (
	fileLook  = 30 * time.Second
	fileAgain = time.Second
)

// FileOptions say which file lists the endpoints. How it is read and watched is
// whose file it is to know.
type FileOptions struct {
	// Path is the file.
	Path string
	// Load reads it. The error says what is wrong and where.
	Load func(path string) ([]balancer.Spec, error)
	// Watch calls changed, on a goroutine of its own choice, whenever the file's
	// content is another one, until ctx ends. The error is of setting up the watch.
	Watch func(ctx context.Context, path string, changed func()) error
}

// fileSource reads a file whenever it changes. It implements Source.
type fileSource struct {
	options FileOptions
	again   chan struct{} // holds one: look at the file
}

// NewFile returns a source that reads a file. A file that is gone, half
// written or wrong leaves what was there.
func NewFile(o FileOptions) Source {
	return &fileSource{options: o, again: make(chan struct{}, 1)}
}

// Name implements Source.
func (f *fileSource) Name() string { return "file " + f.options.Path }

// Refresh implements Source. A file is read when it changes, and tells no more
// when it is read again.
func (f *fileSource) Refresh() {}

func (f *fileSource) look() {
	select {
	case f.again <- struct{}{}:
	default:
	}
}

// Run implements Source.
func (f *fileSource) Run(ctx context.Context, sink Sink) error {
	ctx, end := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer end()
	broken := make(chan error, 1)
	watching.Go(func() { broken <- f.options.Watch(ctx, f.options.Path, f.look) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s is not watched: %w", f.options.Path, err)
		case <-f.again:
		case <-timer.C:
		}
		wait := fileLook
		if list, err := f.options.Load(f.options.Path); err != nil {
			sink.Fail(err)
			wait = fileAgain
		} else {
			note := ""
			if len(list) == 0 {
				note = f.options.Path + " lists no endpoints"
			}
			sink.Publish(specs(list), note)
		}
		timer.Reset(wait)
	}
}
