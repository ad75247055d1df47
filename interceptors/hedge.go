package interceptors

import (
	"math/rand/v2"

	"github.com/outrigger-rpc/outrigger/policy"
)

// hedge sends an attempt from a goroutine of its own: a hedge, or a retry that
// falls due while the caller's goroutine still leaves the attempt before it.
// The call waits for the goroutine before it ends. l.mu is held.
func (l *life) hedge(now policy.Instant) {
	a := l.add(false)
	l.hedges.Go(func() { l.attempt(a, now) })
}

// giveUp ends an attempt that is not the call's answer: the endpoint is not
// judged by it.
func (a *attempt) giveUp(now policy.Instant) {
	l := a.life
	if l == nil || l.won == a && a.lingers {
		return
	}
	if a.core.Live() {
		l.call.Abandon(&a.core, now, rand.Uint64())
	}
	if l.won != a {
		a.judged = true
		a.sever()
	}
}
