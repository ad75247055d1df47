package relay

import (
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// hurryPause is the least time between two connects to one endpoint that were
// hurried.
const hurryPause = time.Second

// haste is what is known of connects that don't wait for their backoff. Guarded
// by upstream.mu.
type haste struct {
	down   bool           // the endpoint is known to have no connection
	spent  bool           // a connect was hurried, and nothing is new since
	racing bool           // one was hurried beside another one under way
	begun  bool           // there was one
	last   policy.Instant // when
}

// Hurry says that there is reason to believe that an endpoint which has no
// connection can have one now, such as a health check that passed: it is
// connected at once, whatever is left of its backoff, and beside a connect that
// may have begun before it was back. An endpoint has one such connect for as
// long as it is down, and another one with each Hurry that is news: that comes
// of a change, and not of what was known before. There is one a second at most.
func (r *Relay) Hurry(e *balancer.Endpoint, news bool) {
	if u, ok := r.upstreams.Load(e); ok {
		u.(*upstream).hurry(r.now(), news)
	}
}

func (u *upstream) hurry(now policy.Instant, news bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := &u.haste
	if !h.down || u.forgotten || u.released {
		return
	}
	if news {
		h.spent = false
	}
	if h.spent || h.racing || u.dialing > 1 || h.begun && now-h.last < hurryPause {
		return
	}
	h.spent, h.begun, h.last = true, true, now
	h.racing = u.dialing > 0
	u.dial()
}

// settle notes that a connect came to an end. It reports whether another one had
// its connection before it. u.mu is held.
func (h *haste) settle(u *upstream) (late bool) {
	late = h.racing && len(u.conns) > 0
	if u.dialing == 0 {
		h.racing = false
	}
	return late
}
