package api

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
)

// defaultInterval is how often a watcher looks that does not say.
const defaultInterval = time.Second

// watchGap is the least time between two looks of a watcher, however fast
// things change.
const watchGap = 20 * time.Millisecond

// broadcast wakes everybody who waits. The zero value is ready for use.
type broadcast struct {
	mu   sync.Mutex
	wake chan struct{} // nil while nobody waits
}

// signal wakes those who wait now.
func (b *broadcast) signal() {
	b.mu.Lock()
	if b.wake != nil {
		close(b.wake)
		b.wake = nil
	}
	b.mu.Unlock()
}

// next returns a channel that the next signal closes.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wake == nil {
		b.wake = make(chan struct{})
	}
	return b.wake
}

// watch calls look at once, then at every interval and after every change, until
// it fails or ctx ends. The first look may be refused as a plain request may.
func (s *Server) watch(ctx context.Context, interval *durationpb.Duration, look func() error) error {
	if s.watchers.Add(1) > maxWatchers {
		s.watchers.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "%d watch streams are open already, and no more are allowed; end one of them", maxWatchers)
	}
	defer s.watchers.Add(-1)
	every := defaultInterval
	if interval != nil {
		every = interval.AsDuration()
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	gap := time.NewTimer(watchGap)
	defer gap.Stop()
	for {
		changed := s.changes.next() // before the look: no change goes unseen
		if err := look(); err != nil {
			return err
		}
		gap.Reset(watchGap)
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-ticker.C:
		case <-changed:
			select {
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			case <-gap.C:
			}
		}
	}
}
