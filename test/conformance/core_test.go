package conformance

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// coreDoor drives policy.Call by itself, with an event loop in virtual time: a
// shell without bytes. What it does on an event is what the relay does.
type coreDoor struct {
	service *policy.Service
	seed    uint64
	clock   policy.Instant
	calls   []*coreCall
	woken   []*coreCall
	fell    []time.Duration // when something fell due, since the row began
	audits  bool            // calls keep what the service counted for them
}

// epoch is the instant at which rows begin.
const epoch = time.Second

func newCoreDoor(r *row, seed uint64) *coreDoor {
	return &coreDoor{service: newService(r, addresses(r.endpoints())...), seed: seed, clock: epoch}
}

// coreCall is one call in the core.
type coreCall struct {
	door    *coreDoor
	name    string
	policy  policy.Call
	flying  []*coreAttempt
	stream  bool // its request is open
	said    int  // messages of it
	begun   bool // an answer's head went out
	outcome string

	random       *rand.Rand        // its own: what else happens does not change its draws
	refused      policy.Reason     // why it was, whatever was answered then
	counted      map[string]uint64 // by the service, for it, up to its first attempt; see audits
	countedLater map[string]uint64 // after that
	again        []policy.Instant  // when a retry was decided on that the budget pays for
	hedged       []policy.Instant  // the same of hedges
	admitted     policy.Instant    // when it was let in; 0: it was not
	timeout      time.Duration     // the caller's; negative: none
}

// audit does something for the call and keeps what the service counted
// meanwhile.
func (c *coreCall) audit(do func()) {
	s := c.door.service
	if !c.door.audits {
		do()
		return
	}
	hedges := c.sum("hedge")
	before, into := counts(slices.Concat(s.Observed(), s.Actions())), c.counted
	if c.policy.Attempts() > 0 {
		into = c.countedLater
	}
	do()
	for label, n := range counts(slices.Concat(s.Observed(), s.Actions())) {
		into[label] += n - before[label]
	}
	for range c.sum("hedge") - hedges {
		c.hedged = append(c.hedged, c.door.clock)
	}
}

// sum is what the service counted for the call in all.
func (c *coreCall) sum(label string) uint64 { return c.counted[label] + c.countedLater[label] }

type coreAttempt struct {
	policy.Attempt
	number int
}

// Wake implements policy.Waker.
func (c *coreCall) Wake() { c.door.woken = append(c.door.woken, c) }

func (d *coreDoor) call(name string) (*coreCall, error) {
	for _, c := range d.calls {
		if c.name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("there is no such call")
}

func (d *coreDoor) arrive(name string, w with) error {
	c := &coreCall{door: d, name: name, stream: w.Stream, said: 1, counted: make(map[string]uint64), countedLater: make(map[string]uint64)}
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // it never fails
	c.random = rand.New(rand.NewPCG(d.seed, h.Sum64()))
	d.calls = append(d.calls, c)
	a := w.arrival()
	a.Owner, c.timeout = c, a.Timeout
	c.policy.Begin(d.service.Method(w.method()), d.clock, a)
	c.admit()
	d.drain()
	return nil
}

func (d *coreDoor) answer(name string, h how) error {
	c, err := d.call(name)
	if err != nil {
		return err
	}
	a, err := c.attempt(h.Attempt)
	if err != nil {
		return err
	}
	c.policy.Touch(d.clock)
	c.finish(a, h.ending())
	d.drain()
	return nil
}

func (d *coreDoor) head(name string, h how) error {
	c, err := d.call(name)
	if err != nil {
		return err
	}
	a, err := c.attempt(h.Attempt)
	if err != nil {
		return err
	}
	c.policy.Touch(d.clock)
	c.begun = true
	c.abandonOthers(a)
	return nil
}

func (d *coreDoor) cancel(name string) error {
	c, err := d.call(name)
	if err != nil {
		return err
	}
	c.end(policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, canceled)
	d.drain()
	return nil
}

func (d *coreDoor) say(name string) error {
	c, err := d.call(name)
	if err != nil {
		return err
	}
	c.policy.Touch(d.clock)
	if c.said++; c.said > 1 {
		c.policy.MarkStream()
	}
	return nil
}

func (d *coreDoor) reload(s policy.Settings) error {
	d.service.Update(s)
	d.drain()
	return nil
}

func (d *coreDoor) subject() *policy.Service { return d.service }

func (d *coreDoor) now() policy.Instant { return d.clock }

// advance handles what falls due on the way, each thing at its own instant.
func (d *coreDoor) advance(to time.Duration) error {
	for range 1_000_000 {
		var next *coreCall
		for _, c := range d.calls {
			if due := c.due(); due != 0 && due <= epoch+to && (next == nil || due < next.due()) {
				next = c
			}
		}
		if next == nil {
			d.clock = epoch + to
			return nil
		}
		d.clock = max(d.clock, next.due())
		d.fell = append(d.fell, d.clock-epoch)
		next.expire()
		d.drain()
	}
	return fmt.Errorf("something is due again and again at %v", d.clock-epoch)
}

// drain asks again for those that others let in.
func (d *coreDoor) drain() {
	for len(d.woken) > 0 {
		c := d.woken[0]
		d.woken = d.woken[1:]
		c.admit()
	}
}

func (d *coreDoor) wake(waiters []*policy.Waiter) { policy.Wake(waiters) }

func (d *coreDoor) state(name string) state {
	c, err := d.call(name)
	switch {
	case err != nil:
		return state{text: "absent"}
	case c.outcome != "":
		return state{text: c.outcome}
	case len(c.flying) == 0:
		return state{text: waits}
	}
	var numbers []int
	var at []string
	for _, a := range c.flying {
		numbers = append(numbers, a.number)
		if a.Endpoint != nil {
			at = append(at, a.Endpoint.Address())
		}
	}
	return state{text: underWay(numbers...), at: at}
}

// close ends what is left and looks for what was not given back.
func (d *coreDoor) close() error {
	for _, c := range d.calls {
		if c.outcome == "" {
			c.end(policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, canceled)
			d.drain()
		}
	}
	return nothingHeld(d.service, d.clock)
}

// nothingHeld checks that calls which are over gave everything back.
func nothingHeld(s *policy.Service, now policy.Instant) error {
	for _, e := range s.Endpoints().All() {
		if n := e.InFlight(); n != 0 {
			return fmt.Errorf("%d attempts are in flight at %s when all calls are over", n, e.Address())
		}
	}
	for _, b := range s.Breakers() {
		if n := b.Breaker.Snapshot(now).ProbesInFlight; n != 0 {
			return fmt.Errorf("%d probes of %v are in flight when all calls are over", n, b.Key)
		}
	}
	if l := s.Limiter(); l != nil {
		if n := l.Snapshot(now); n.InFlight != 0 || n.Waiting != 0 {
			return fmt.Errorf("%d calls are inside and %d wait when all calls are over", n.InFlight, n.Waiting)
		}
	}
	return nil
}

// attempt returns an attempt under way; 0: the latest.
func (c *coreCall) attempt(number int) (*coreAttempt, error) {
	for _, a := range slices.Backward(c.flying) {
		if number == 0 || a.number == number {
			return a, nil
		}
	}
	return nil, fmt.Errorf("no attempt %d is under way; it is %q", number, c.door.state(c.name).text)
}

func (c *coreCall) admit() {
	if c.outcome != "" || c.admitted != 0 {
		return
	}
	d := c.door
	var admission policy.Admission
	c.audit(func() { admission = c.policy.Admit(d.clock, c.random.Uint64()) })
	d.wake(c.policy.Woken())
	switch {
	case admission.Refusal != nil:
		c.refuse(admission.Refusal)
	case !admission.Wait:
		c.admitted = d.clock
		c.dispatch()
	}
}

// dispatch makes an attempt.
func (c *coreCall) dispatch() {
	d := c.door
	a := &coreAttempt{}
	pick := c.policy.Pick
	if d.service.Endpoints().Len() == 0 {
		pick = c.policy.Send
	}
	var refusal *policy.Refusal
	c.audit(func() { refusal = pick(d.clock, c.random.Uint64(), &a.Attempt) })
	if refusal != nil {
		if c.policy.InFlight() == 0 {
			c.refuse(refusal)
		}
		return
	}
	a.number = c.policy.Attempts()
	c.flying = append(c.flying, a)
}

// finish ends an attempt and does what follows.
func (c *coreCall) finish(a *coreAttempt, e policy.Ending) {
	d := c.door
	e.Committed = e.Committed || c.begun
	c.flying = slices.DeleteFunc(c.flying, func(x *coreAttempt) bool { return x == a })
	switch c.decide(a, e) {
	case policy.Again:
		if c.policy.Due(d.clock, !c.stream) == policy.Another {
			c.dispatch()
		}
	case policy.Return:
		c.abandonOthers(nil)
		if e.Reason == policy.ConnectFailed && c.fellBack(&policy.Refusal{Reason: e.Reason}) {
			return
		}
		c.end(e.Result, returned(e.Code))
	}
}

func (c *coreCall) abandonOthers(but *coreAttempt) {
	for _, a := range c.flying {
		if a != but {
			c.policy.Abandon(&a.Attempt, c.door.clock, c.random.Uint64())
		}
	}
	c.flying = nil
	if but != nil {
		c.flying = []*coreAttempt{but}
	}
}

func (c *coreCall) refuse(r *policy.Refusal) {
	c.refused = r.Reason
	if !c.fellBack(r) {
		c.end(policy.Refused(r), refused(r))
	}
}

func (c *coreCall) fellBack(r *policy.Refusal) bool {
	var f *policy.FallbackPolicy
	c.audit(func() { f = c.policy.Fallback(r) })
	if f != nil {
		c.end(policy.Result{Code: f.Code, Reason: r.Reason}, fallback(f.Code))
	}
	return f != nil
}

// end closes the books.
func (c *coreCall) end(r policy.Result, outcome string) {
	if c.outcome != "" {
		return
	}
	d := c.door
	for _, a := range c.flying {
		c.policy.Settle(&a.Attempt, d.clock, r, c.random.Uint64())
	}
	c.flying, c.outcome = nil, outcome
	c.audit(func() { d.wake(c.policy.End(d.clock, r, c.random.Uint64())) })
}

// due is when something of the call falls due; 0: never.
func (c *coreCall) due() policy.Instant {
	if c.outcome != "" {
		return 0
	}
	due := c.policy.Expiry(nil)
	for _, a := range c.flying {
		if at := c.policy.Expiry(&a.Attempt); due == 0 || at != 0 && at < due {
			due = at
		}
	}
	return due
}

func (c *coreCall) expire() {
	d := c.door
	if c.stream {
		c.policy.MarkStream() // an open request is how one tells
	}
	if refusal := c.policy.Expire(d.clock, nil); refusal != nil {
		c.refuse(refusal)
		return
	}
	for _, a := range slices.Clone(c.flying) {
		if refusal := c.policy.ExpireAttempt(d.clock, &a.Attempt); refusal != nil {
			c.timeOut(a, refusal)
			if c.outcome != "" {
				return
			}
		}
	}
	var due policy.Due
	c.audit(func() { due = c.policy.Due(d.clock, !c.stream) })
	switch due {
	case policy.Resume:
		c.admit()
	case policy.Another:
		c.dispatch()
	}
}

// timeOut ends an attempt whose own time is over.
func (c *coreCall) timeOut(a *coreAttempt, refusal *policy.Refusal) {
	d := c.door
	c.flying = slices.DeleteFunc(c.flying, func(x *coreAttempt) bool { return x == a })
	switch c.decide(a, policy.Ending{Result: policy.Refused(refusal), Committed: c.begun}) {
	case policy.Again:
		if c.policy.Due(d.clock, !c.stream) == policy.Another {
			c.dispatch()
		}
	case policy.Return:
		c.refuse(refusal)
	}
}

// decide asks what follows an attempt.
func (c *coreCall) decide(a *coreAttempt, e policy.Ending) policy.Action {
	d := c.door
	var verdict policy.Verdict
	free, hedges := c.sum("transparent_retry"), c.sum("hedge")
	c.audit(func() { verdict = c.policy.Finish(&a.Attempt, d.clock, e, c.random.Uint64()) })
	if verdict.Action == policy.Again && d.audits && c.sum("transparent_retry") == free && c.sum("hedge") == hedges {
		c.again = append(c.again, d.clock)
	}
	return verdict.Action
}
