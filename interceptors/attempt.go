package interceptors

import (
	"context"
	"net/http"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/policy"
)

// attempt is one try, and the context that it is sent with: so the balancer
// finds it, without an allocation of its own.
type attempt struct {
	// Context is the caller's; with a cancel of its own where something else
	// than the caller may end the attempt.
	context.Context
	cancel context.CancelFunc // nil: none
	life   *life
	core   policy.Attempt
	number int  // from 1
	own    bool // it is sent from the caller's goroutine, so it may use what the caller lent
	judged bool // the core knows how it ended
	// lingers says that the answer has come and is still being read: the core
	// hears of the attempt's end later. HTTP only.
	lingers bool
	// refusal is why it was not sent, or was ended.
	refusal   *policy.Refusal
	unreached bool // the refusal is that of an endpoint without a connection

	// What the balancer did and heard.
	sent    bool        // a connection was found for it
	trailer metadata.MD // of its answer

	// What the door keeps of it.
	err      error          // of its answer
	apart    *apart         // gRPC: what it writes to; nil: what the caller lent
	response *http.Response // plain HTTP
}

// attemptKey finds an attempt in a context.
type attemptKey struct{}

// Value implements context.Context.
func (a *attempt) Value(key any) any {
	if key == (attemptKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// next prepares the call's first attempt.
func (l *life) next() *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.prepare(&l.first, true)
}

// add prepares another attempt. l.mu is held.
func (l *life) add(own bool) *attempt {
	a := &attempt{}
	l.later = append(l.later, a)
	return l.prepare(a, own)
}

func (l *life) prepare(a *attempt, own bool) *attempt {
	a.life, a.own, a.number, a.Context = l, own, len(l.later)+1, l.ctx
	if l.severs {
		a.Context, a.cancel = context.WithCancel(l.ctx)
	}
	return a
}

// attempt makes an attempt, from its beginning to its judgement.
func (l *life) attempt(a *attempt, now policy.Instant) {
	l.mu.Lock()
	if l.over || a.judged {
		l.mu.Unlock()
		return
	}
	if r := l.door.start(a, now); r != nil {
		a.refusal = r
	} else {
		l.arm(now)
		l.mu.Unlock()
		l.door.send(a)
		l.mu.Lock()
	}
	if !a.judged && !l.over {
		l.conclude(a, l.door.judge(a), l.client.now())
	}
	dropped := a.response
	if l.won == a {
		dropped = nil
	}
	lingers := a.lingers
	l.mu.Unlock()
	if dropped != nil {
		discard(dropped)
	}
	if !lingers {
		a.sever()
	}
}

// began notes that the core began the attempt.
func (a *attempt) began(now policy.Instant) {
	a.life.counted++
	if a.number > 1 {
		a.life.event(a.what())
	}
	a.life.arm(now)
}

// what says what the attempt is, where it is not the first.
func (a *attempt) what() string {
	if a.core.Hedge() {
		return "hedge"
	}
	return "retry"
}

// sever cancels what is under way of the attempt.
func (a *attempt) sever() {
	if a.cancel != nil {
		a.cancel()
	}
}

// heard takes what the balancer hears of the attempt's end.
func (a *attempt) heard(info balancer.DoneInfo) {
	if len(info.Trailer) == 0 {
		return
	}
	l := a.life
	l.mu.Lock()
	defer l.mu.Unlock()
	a.trailer = info.Trailer
	if a.core.Live() && l.call.WantsLoad() {
		if r, ok := loadReport(info.Trailer); ok {
			l.call.ReportLoad(&a.core, l.client.now(), r)
		}
	}
}
