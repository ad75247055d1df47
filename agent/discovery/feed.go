package discovery

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// How changes are damped, and how soon a source that returned is run again,
// where FeedOptions don't say.
const (
	DefaultCoalesce = 100 * time.Millisecond
	DefaultHold     = 2 * time.Second
	againFirst      = 200 * time.Millisecond
	againMost       = 10 * time.Second
)

// FeedOptions make a Feed.
type FeedOptions struct {
	// Source is where the endpoints come from.
	Source Source
	// Deliver takes each set that differs from the one before: the first as soon
	// as there is one. It is called by one goroutine at a time.
	Deliver func(Snapshot)
	// Coalesce is how long changes are gathered before they are delivered
	// together. Zero: DefaultCoalesce.
	Coalesce time.Duration
	// Hold is how long an endpoint that the source no longer names stays, without
	// new calls, in case it comes back. Zero: DefaultHold.
	Hold time.Duration
	// Logger hears when the source begins to fail and when it is well again. nil:
	// nobody does.
	Logger *slog.Logger
}

// Status is what is known of a feed.
type Status struct {
	// Source says where the endpoints come from, in a few words.
	Source string
	// Version is that of the last set that was delivered; 0: the source has not
	// answered yet.
	Version uint64
	// Endpoints is how many are in it.
	Endpoints int
	// Stale: the source fails, and the last good set is used.
	Stale bool
	// Age is how long ago the source last said what the set is, where it fails;
	// before its first answer, how long it has been asked. Otherwise 0: the set is
	// known to be right.
	Age time.Duration
	// Problem is why the source fails, or what it has to say about a set that
	// lacks something, in plain words; empty: nothing.
	Problem string
}

// Feed carries a source's endpoints to whoever uses them. Make it with NewFeed.
// Safe for concurrent use.
type Feed struct {
	options FeedOptions
	origin  time.Time
	woken   chan struct{} // holds one: there is something new
	end     context.CancelFunc
	work    sync.WaitGroup

	mu        sync.Mutex
	damper    damper
	answered  bool
	good      time.Time // when the source last published
	failing   bool      // since good
	problem   string
	version   uint64
	endpoints int
}

// NewFeed returns a feed that does nothing before Start.
func NewFeed(o FeedOptions) *Feed {
	if o.Coalesce == 0 {
		o.Coalesce = DefaultCoalesce
	}
	if o.Hold == 0 {
		o.Hold = DefaultHold
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	now := time.Now()
	return &Feed{options: o, origin: now, good: now, woken: make(chan struct{}, 1), damper: damper{coalesce: o.Coalesce, hold: o.Hold}}
}

// Start begins. What a static source has is delivered before Start returns, and
// no goroutine is needed for it. It is called once.
func (f *Feed) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.end = cancel
	if list, ok := f.options.Source.(static); ok {
		f.Publish(specs(list), "")
		f.deliver(time.Since(f.origin))
		return
	}
	f.work.Go(func() { f.run(ctx) })
	f.work.Go(func() { f.pass(ctx) })
}

// Stop ends what Start began and waits for it. Nothing is delivered afterwards.
func (f *Feed) Stop() {
	f.end()
	f.work.Wait()
}

// Refresh says that a connect to one of the endpoints failed: the set may be
// out of date. It doesn't block.
func (f *Feed) Refresh() { f.options.Source.Refresh() }

// run runs the source, again and again where it returns.
func (f *Feed) run(ctx context.Context) {
	wait := againFirst
	for {
		begun := time.Now()
		err := f.options.Source.Run(ctx, f)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errEnded
		}
		f.Fail(err)
		if time.Since(begun) > againMost {
			wait = againFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(2*wait, againMost)
	}
}

var errEnded = errors.New("the source ended by itself")

// Publish implements Sink.
func (f *Feed) Publish(endpoints []Endpoint, note string) {
	set := ordered(endpoints)
	f.mu.Lock()
	well := f.failing
	f.answered, f.failing, f.good, f.problem = true, false, time.Now(), note
	f.damper.offer(time.Since(f.origin), set)
	f.mu.Unlock()
	if well {
		f.options.Logger.Info("discovery is well again", "source", f.options.Source.Name(), "endpoints", len(set))
	}
	f.wake()
}

// Fail implements Sink.
func (f *Feed) Fail(err error) {
	f.mu.Lock()
	began := !f.failing
	f.failing, f.problem = true, err.Error()
	kept := f.endpoints
	f.mu.Unlock()
	if began {
		f.options.Logger.Warn("discovery fails: the last good set stays", "source", f.options.Source.Name(), "endpoints", kept, "error", err)
	}
}

func (f *Feed) wake() {
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

// pass delivers what is due.
func (f *Feed) pass(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		f.mu.Lock()
		at, waits := f.damper.due()
		f.mu.Unlock()
		if waits {
			timer.Reset(max(0, at-time.Since(f.origin)))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-f.woken:
		case <-timer.C:
			if ctx.Err() == nil {
				f.deliver(time.Since(f.origin))
			}
		}
	}
}

func (f *Feed) deliver(now time.Duration) {
	f.mu.Lock()
	set, differs := f.damper.take(now)
	if differs {
		f.version++
		f.endpoints = len(set)
	}
	version := f.version
	f.mu.Unlock()
	if differs {
		f.options.Deliver(Snapshot{version, set})
	}
}

// Status says how the feed is.
func (f *Feed) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := Status{Source: f.options.Source.Name(), Version: f.version, Endpoints: f.endpoints, Problem: f.problem}
	s.Stale = f.answered && f.failing
	if s.Stale || !f.answered {
		s.Age = time.Since(f.good)
	}
	return s
}
