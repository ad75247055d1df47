package health

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// look makes the waiting goroutine look at the queue again, and starts it
// where there is something to wait for. c.mu is held.
func (c *Checker) look() {
	if c.turning {
		select {
		case c.wake <- struct{}{}:
		default: // it will look anyway
		}
		return
	}
	if !c.closed && len(c.entries) > 0 {
		c.turning = true
		c.work.Go(c.turn)
	}
}

// turn waits for what falls due and starts workers for it, until nothing is
// followed any more.
func (c *Checker) turn() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.mu.Lock()
		if c.closed || len(c.entries) == 0 {
			c.turning = false
			c.mu.Unlock()
			return
		}
		now := c.now()
		for c.running < c.concurrency {
			e := c.queue.due(now)
			if e == nil {
				break
			}
			c.running++
			c.work.Go(func() { c.worker(e) })
		}
		// Workers take what is due by themselves: while all are busy, none is
		// to be started.
		wait, some := c.queue.wait(now)
		some = some && c.running < c.concurrency
		c.mu.Unlock()
		if some {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
		select {
		case <-timer.C:
		case <-c.wake:
		}
	}
}

// worker checks an endpoint, and then others for as long as some are due.
func (c *Checker) worker(e *entry) {
	for e != nil {
		c.mu.Lock()
		s := e.service
		j := &job{entry: e, address: e.endpoint.Address(), transport: s.transport, settings: s.settings, link: e.link}
		c.mu.Unlock()
		ctx, cancel := context.WithTimeout(c.ctx, j.settings.Timeout)
		r := c.ask(ctx, c, j)
		cancel()
		e = c.done(j, r)
	}
}

// done takes a result in and returns what is due next; nil: the worker is no
// longer needed.
func (c *Checker) done(j *job, r result) *entry {
	c.mu.Lock()
	now, e := c.now(), j.entry
	var n *news
	passed, doubted := false, e.verdict.failures > 0
	if !e.gone && !c.closed {
		s := e.service
		s.counts[r.outcome]++
		passed = r.outcome == Passed && !s.settings.Observe
		if e.verdict.check(r.ok(), r.cause, thresholds{s.settings.UnhealthyAfter, s.settings.HealthyAfter}) {
			n = e.turned(now)
		}
		if !r.ok() {
			e.noWatch = false // what comes back may be another version
		}
		if r.outcome == Unsupported && !s.warned {
			s.warned = true
			c.logger.Warn("health check: it can't be made, so endpoints count as healthy", "service", s.name, "endpoint", j.address, "reason", r.cause)
		}
		c.queue.put(e, now+next(s.settings.Interval, e.verdict.doubtful(), rand.Uint64()))
	}
	var due *entry
	if !c.closed {
		due = c.queue.due(now)
	}
	if due == nil {
		c.running--
	}
	c.look()
	c.mu.Unlock()
	c.tell(n)
	if passed {
		c.passed(e.endpoint, doubted || n != nil)
	}
	return due
}

// news is what is told of an endpoint that turned.
type news struct {
	service, address, reason string
	observed                 bool
}

// turned shows a verdict that changed. Checker.mu is held.
func (e *entry) turned(now Instant) *news {
	e.show(now)
	return &news{e.service.name, e.endpoint.Address(), e.verdict.reason, e.service.settings.Observe}
}

// tell logs it.
func (c *Checker) tell(n *news) {
	if n == nil {
		return
	}
	level, state := slog.LevelInfo, "healthy"
	attributes := []any{"service", n.service, "endpoint", n.address}
	if n.reason != "" {
		level, state = slog.LevelWarn, "UNHEALTHY"
		attributes = append(attributes, "reason", n.reason)
	}
	if n.observed {
		attributes = append(attributes, "mode", "OBSERVE")
	}
	c.logger.Log(context.Background(), level, "health check: endpoint "+state, attributes...)
	c.changed()
}
