package policy

import (
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/sla"
)

// planHedge makes the next hedge due, once an attempt was sent.
func (c *Call) planHedge(now Instant) {
	p := &c.method.rule.policy.Hedge
	c.hedgeAt = 0
	if p.MaxAttempts <= 1 || p.Mode == Off || c.stream || c.noRetry || !c.idempotent || int(c.hedges)+1 >= p.MaxAttempts {
		return
	}
	c.hedgeAt = now + c.method.hedgeDelay(now)
}

// hedgeDue decides on the hedge whose time has come.
func (c *Call) hedgeDue(now Instant) Due {
	c.hedgeAt = 0
	counts := &c.method.service.counts
	p := &c.method.rule.policy.Hedge
	if limit := c.limit(); limit != 0 && now+c.method.typical() >= limit {
		return Nothing // it could not finish before the call's end
	}
	if c.blocked(now) {
		return Nothing
	}
	if !c.method.service.budget.withdraw(now) {
		counts.overBudget.Add(1)
		return Nothing
	}
	c.hedges++
	if p.Mode == Observe {
		counts.wouldHedge.Add(1)
		c.planHedge(now)
		return Nothing
	}
	counts.hedges.Add(1)
	return Another
}

// awaitOthers judges a failed attempt beside others: a fatal answer is the
// call's, any other leaves them running and brings the next hedge on.
func (c *Call) awaitOthers(now Instant, e Ending) Verdict {
	if !c.nonFatal(e) {
		return Verdict{}
	}
	switch {
	case e.Pushback < 0:
		c.hedgeAt = 0
	case c.hedgeAt != 0:
		c.hedgeAt = now + e.Pushback
	}
	return Verdict{Action: Await}
}

// nonFatal reports whether another attempt may still do better.
func (c *Call) nonFatal(e Ending) bool {
	if e.Reason == Protocol {
		return true // the endpoint is broken, the call is not
	}
	p := &c.method.rule.policy
	return c.worthIt(p.Hedge.NonFatal.or(p.Retry.Codes).or(Codes(Unavailable)), e)
}

// hedgeDelay returns how long after an attempt the next one is sent.
func (m *Method) hedgeDelay(now Instant) time.Duration {
	p := &m.rule.policy.Hedge
	if q := m.rule.quantile; q != nil {
		if d := q.read(now, p.DelayQuantile); d > 0 {
			return d
		}
	}
	if p.Delay > 0 {
		return p.Delay
	}
	return DefaultHedgeDelay
}

// DefaultHedgeDelay holds where only a quantile is asked for and too few calls
// were seen to know it.
const DefaultHedgeDelay = 100 * time.Millisecond

const (
	quantileWindow  = time.Minute
	quantileEvery   = time.Second // how long a figure is good for
	quantileMinimum = 50          // attempts that make one
)

// liveQuantile is a quantile of the attempts' latencies, read once a second.
type liveQuantile struct {
	attempts *sla.Recorder
	until    atomic.Int64 // Instant up to which value holds
	value    atomic.Int64
}

func newLiveQuantile() *liveQuantile { return &liveQuantile{attempts: sla.NewRecorder(sla.Options{})} }

func (q *liveQuantile) record(now Instant, took time.Duration) {
	q.attempts.Record(now, sla.Success, took)
}

// read returns the quantile; zero: too few attempts were seen.
func (q *liveQuantile) read(now Instant, quantile float64) time.Duration {
	until := q.until.Load()
	if int64(now) >= until && q.until.CompareAndSwap(until, int64(now+quantileEvery)) {
		t := q.attempts.Read(now, quantileWindow)
		var d time.Duration
		if t.Calls >= quantileMinimum {
			d = t.Latency.Quantile(quantile)
		}
		q.value.Store(int64(d))
	}
	return time.Duration(q.value.Load())
}

// answeredIn learns from an attempt that was answered well.
func (m *Method) answeredIn(now Instant, took time.Duration) {
	if old := m.usual.Load(); old == 0 {
		m.usual.Store(int64(took))
	} else {
		m.usual.Store(old + (int64(took)-old)/8)
	}
	if q := m.rule.quantile; q != nil {
		q.record(now, took)
	}
}

// outlasted learns from an attempt that another one overtook: it would have
// taken longer than so much.
func (m *Method) outlasted(now Instant, took time.Duration) {
	if q := m.rule.quantile; q != nil {
		q.record(now, took)
	}
}

// typical is about how long an attempt takes that is answered well: a moving
// average with weight 1/8. Zero: none was yet.
func (m *Method) typical() time.Duration { return time.Duration(m.usual.Load()) }
