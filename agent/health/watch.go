package health

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// farewellPoll is how often a watch looks whether the endpoint sent a GOAWAY.
// A server that stops in good order waits for the streams that it has; net/http
// tells of a GOAWAY only who asks.
const farewellPoll = time.Second

// watch keeps the connection of a check that passed and watches the endpoint
// over it: what changes is known at once, and not with the next check. Checks
// go on, over the same connection, since a stream is silent about an endpoint
// that died in silence. It reports false where the endpoint is not to be
// watched.
func (c *Checker) watch(e *entry, l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || e.gone || e.link != nil || e.noWatch || c.watches >= c.maxWatches {
		return false
	}
	ctx, cancel := context.WithCancel(c.ctx)
	l.end = cancel
	e.link = l
	c.watches++
	began := c.now()
	c.work.Go(func() {
		watched := l.stream(ctx, func(r result) { c.told(e, l, r) })
		cancel()
		l.conn.Close()
		c.unwatched(e, l, began, watched)
	})
	return true
}

// stream reads what the endpoint says of itself until the stream ends. It
// reports false where the endpoint has no Watch.
func (l *link) stream(ctx context.Context, told func(result)) bool {
	answer, err := l.post(ctx, watchMethod)
	if err != nil {
		return true
	}
	defer answer.Body.Close()
	if r := notGRPC(answer); r != nil {
		return false
	}
	done := l.untilFarewell()
	defer done()
	for {
		serving, _, err := readServing(answer.Body)
		if errors.Is(err, io.EOF) {
			code, _ := statusOf(answer)
			return code != policy.Unimplemented
		}
		if err != nil {
			return true
		}
		told(judge(serving))
	}
}

// untilFarewell ends the watch when the connection takes no more calls. The
// function that it returns ends the looking.
func (l *link) untilFarewell() (done func()) {
	var mu sync.Mutex // orders a timer that fires, and its stop
	var timer *time.Timer
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(farewellPoll, func() {
		mu.Lock()
		defer mu.Unlock()
		if l.conn.Available() == 0 {
			l.end()
		} else if timer != nil {
			timer.Reset(farewellPoll)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
		timer = nil
	}
}

// told takes in what an endpoint said of itself.
func (c *Checker) told(e *entry, l *link, r result) {
	c.mu.Lock()
	var n *news
	passed := false
	if !e.gone && e.link == l {
		passed = r.outcome == Passed && !e.service.settings.Observe
		if e.verdict.told(r.ok(), r.cause) {
			n = e.turned(c.now())
		}
	}
	c.mu.Unlock()
	c.tell(n)
	if passed {
		c.passed(e.endpoint, n != nil)
	}
}

// unwatched follows the end of a watch. That is no verdict, but a reason to ask
// soon; at once where the watch had stood for long.
func (c *Checker) unwatched(e *entry, l *link, began Instant, watched bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches--
	if e.link == l {
		e.link = nil
	}
	e.noWatch = e.noWatch || !watched
	if e.gone || c.closed || !watched || e.place == 0 {
		return
	}
	now, interval := c.now(), e.service.settings.Interval
	soon := now
	if now-began < interval {
		soon += next(interval, true, rand.Uint64())
	}
	if soon < e.due {
		c.queue.put(e, soon)
		c.look()
	}
}
