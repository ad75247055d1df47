package interceptors

import (
	"sync"
	"time"

	"google.golang.org/grpc/balancer"

	"github.com/outrigger-rpc/outrigger/policy"
)

// alarm is a call's one timer. Alarms are used again: a runtime timer and its
// function cost three allocations, the function that hears of an RPC's end one.
type alarm struct {
	timer *time.Timer
	life  *life
	late  bool                    // it was set again while it rang
	done  func(balancer.DoneInfo) // of life's first attempt
}

var alarms = sync.Pool{New: func() any {
	a := &alarm{}
	a.done = func(info balancer.DoneInfo) { a.life.first.heard(info) }
	a.timer = time.AfterFunc(time.Hour, func() { a.life.due() })
	a.timer.Stop()
	return a
}}

// takeAlarm lends an alarm to a life, which gives it back by release.
func takeAlarm(l *life) *alarm {
	a, ok := alarms.Get().(*alarm)
	if !ok {
		panic("interceptors: the pool of alarms holds something else")
	}
	a.life = l
	return a
}

// release gives the alarm back, unless a ring is under way: its goroutine may
// not have read a.life yet. set says that the alarm is set.
func (a *alarm) release(set bool) {
	if set && !a.timer.Stop() || a.late {
		return
	}
	a.life = nil
	alarms.Put(a)
}

// arm sets the alarm for what falls due next, where that is before the caller's
// own deadline, of which the context tells. An alarm that is set for earlier
// stays: it finds nothing due and is set again. l.mu is held.
func (l *life) arm(now policy.Instant) {
	if l.alarm == nil || l.over && !l.lingers() {
		return
	}
	due := l.call.Expiry(&l.first.core)
	for _, a := range l.later {
		if d := l.call.Expiry(&a.core); due == 0 || d != 0 && d < due {
			due = d
		}
	}
	if due == 0 || l.deadline != 0 && due >= l.deadline || l.alarmAt != 0 && l.alarmAt <= due {
		return
	}
	if running := l.alarm.timer.Reset(max(due-now, 0)); !running && l.alarmAt != 0 {
		l.alarm.late = true
	}
	l.alarmAt = due
}

// lingers reports whether the call's answer is still being read.
func (l *life) lingers() bool { return l.won != nil && l.won.lingers }

// due is the alarm's ring.
func (l *life) due() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.alarmAt = 0
	now := l.client.now()
	if l.over {
		l.door.overrun(now)
		return
	}
	if l.parked {
		l.rouse() // the caller's goroutine looks for itself
		return
	}
	if l.look(now) {
		l.hedge(now)
	}
	l.arm(now)
}
