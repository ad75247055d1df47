package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/outrigger-rpc/outrigger/policy"
)

// attempt is one try of an exchange at one endpoint.
type attempt struct {
	policy  policy.Attempt
	address string
	number  int // for traces
	ctx     context.Context
	cancel  context.CancelFunc
	body    *replayReader // nil: the request has none
	res     *http.Response
	err     error
}

// roundTripper sends requests to endpoints.
type roundTripper struct{ *Server }

// RoundTrip implements http.RoundTripper: it returns the answer that counts,
// of one attempt or of several.
func (t roundTripper) RoundTrip(out *http.Request) (*http.Response, error) {
	x := exchangeOf(out.Context())
	x.out = out
	x.body = newReplay(x, out.Body)
	err := x.send()
	for err == nil {
		select {
		case a := <-x.ended:
			var res *http.Response
			if res, err = x.heard(a); res != nil {
				return res, nil
			}
		case <-x.signal:
			err = x.due()
		case <-x.ctx.Done():
			err = context.Cause(x.ctx)
		}
	}
	return nil, err
}

// send begins an attempt.
func (x *exchange) send() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.dispatch(x.server.now())
}

// dispatch picks an endpoint and sends the request there. The error says that
// the exchange is over. x.mu is held.
func (x *exchange) dispatch(now policy.Instant) error {
	a := &attempt{}
	if refusal := x.call.Pick(now, rand.Uint64(), &a.policy); refusal != nil {
		if x.call.InFlight() > 0 { // it was a hedge, and the others go on
			return nil
		}
		return refusedError{refusal}
	}
	x.sentAt = now
	a.address, a.number = a.policy.Endpoint.Address(), x.call.Attempts()
	a.ctx, a.cancel = context.WithCancel(x.out.Context())
	r := x.out.WithContext(a.ctx)
	url := *r.URL
	url.Host = hostOf(a.address)
	r.URL = &url
	if x.trace != nil {
		if parent := x.trace.StartAttempt(now, a.address, a.number); parent != "" {
			r.Header = r.Header.Clone() // attempts may overlap
			r.Header.Set("Traceparent", parent)
		}
	}
	if !x.body.empty {
		a.body = x.body.reader()
		r.Body = a.body
	}
	x.live, x.last = append(x.live, a), a
	transport := x.server.transport(x.target.Transport)
	x.work.Go(func() { x.carry(a, r, transport) })
	x.arm()
	return nil
}

// carry is an attempt's goroutine.
func (x *exchange) carry(a *attempt, r *http.Request, transport *http.Transport) {
	a.res, a.err = transport.RoundTrip(r) //nolint:bodyclose // whoever hears of the attempt closes it
	select {
	case x.ended <- a:
	case <-a.ctx.Done(): // nobody waits for it any more
		if a.err == nil {
			a.res.Body.Close()
		}
	}
}

// heard takes an attempt's answer, or its failure. It returns the answer that
// is the exchange's, or the error that ends it; neither: it goes on.
func (x *exchange) heard(a *attempt) (*http.Response, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !slices.Contains(x.live, a) {
		if a.err == nil {
			a.res.Body.Close()
		}
		return nil, nil
	}
	if a.err != nil {
		return nil, x.broke(a, a.err)
	}
	now := x.server.now()
	x.loadReported(a, now)
	result := policy.Result{Code: x.call.Method().Policy().HTTP.Code(a.res.StatusCode)}
	ending := policy.Ending{Result: result, Pushback: policy.ParseRetryAfter(a.res.Header.Get("Retry-After"))}
	ending.Committed = !x.body.hold() || !x.repeatable
	defer x.body.release()
	verdict := x.call.Judge(&a.policy, now, ending, rand.Uint64())
	if verdict.Action == policy.Return {
		x.answer(a, result)
		return a.res, nil
	}
	x.call.Settle(&a.policy, now, result, rand.Uint64())
	x.forget(a, result, "")
	x.drain(a)
	return nil, x.goOn(now, verdict)
}

// loadReported takes what the endpoint reports of its load in the answer's
// headers, where calls are balanced by that. They go on to the app as they are.
func (x *exchange) loadReported(a *attempt, now policy.Instant) {
	if !x.call.WantsLoad() {
		return
	}
	h := policy.LoadReportHeaders{Binary: a.res.Header.Get(policy.LoadReportBinary), Text: a.res.Header.Get(policy.LoadReportText)}
	if r, ok := h.Parse(); ok {
		x.call.ReportLoad(&a.policy, now, r)
	}
}

// drained bounds what is read of an answer that is not passed on, so that its
// connection can be used again.
const drained = 64 << 10

// drain leaves an answer behind. A short one that is here already keeps its
// connection.
func (x *exchange) drain(a *attempt) {
	body := a.res.Body
	x.work.Go(func() {
		_, _ = io.CopyN(io.Discard, body, drained)
		body.Close()
		a.cut()
	})
}

// broke takes the failure of an attempt that has no answer. x.mu is held.
func (x *exchange) broke(a *attempt, err error) error {
	switch {
	case x.ctx.Err() != nil:
		return context.Cause(x.ctx)
	case x.body.broken():
		return errCallerBroke
	}
	var connect *connectError
	if errors.As(err, &connect) {
		refusal := x.call.Refuse(connect.reason, a.address, fmt.Sprintf("endpoint %s can't be reached: %s", a.address, connect.why))
		return x.failed(a, refusal, true)
	}
	return x.failed(a, x.call.Refuse(policy.ConnectionLost, a.address, fmt.Sprintf("the connection to endpoint %s was lost in mid-call: %v", a.address, err)), false)
}

// errCallerBroke ends an exchange whose request came to no good end.
var errCallerBroke = errors.New("the caller's request broke off")

// failed ends an attempt for a refusal, which is the exchange's too unless
// another attempt follows or is under way. x.mu is held.
func (x *exchange) failed(a *attempt, refusal *policy.Refusal, unreached bool) error {
	now := x.server.now()
	ending := policy.Ending{Result: policy.Refused(refusal), Unreached: unreached}
	// What was never sent can go elsewhere whatever it is.
	ending.Committed = !x.body.hold() || !x.repeatable && !unreached
	defer x.body.release()
	verdict := x.call.Finish(&a.policy, now, ending, rand.Uint64())
	x.forget(a, ending.Result, refusal.Message)
	a.cut()
	if verdict.Action == policy.Return {
		x.abandon(nil)
		return refusedError{refusal}
	}
	return x.goOn(now, verdict)
}

// goOn does what follows an attempt that is over. x.mu is held.
func (x *exchange) goOn(now policy.Instant, verdict policy.Verdict) error {
	if verdict.Action == policy.Again && verdict.At <= now {
		return x.dispatch(now)
	}
	x.arm()
	return nil
}

// due does what has fallen due before there is an answer.
func (x *exchange) due() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.server.now()
	var first *policy.Attempt
	if len(x.live) > 0 {
		first = &x.live[0].policy
	}
	if refusal := x.call.Expire(now, first); refusal != nil {
		return refusedError{refusal}
	}
	for _, a := range slices.Clone(x.live) {
		if refusal := x.call.ExpireAttempt(now, &a.policy); refusal != nil {
			if err := x.failed(a, refusal, false); err != nil {
				return err
			}
		}
	}
	if x.call.Due(now, x.repeatable && x.body.whole()) == policy.Another {
		return x.dispatch(now)
	}
	x.arm()
	return nil
}

// answer makes an attempt's answer the exchange's: the other attempts are over,
// and the answer's body ends the exchange. x.mu is held.
func (x *exchange) answer(a *attempt, result policy.Result) {
	res := a.res
	x.winner = a
	x.abandon(a)
	upgraded := res.StatusCode == http.StatusSwitchingProtocols
	if upgraded {
		x.client.upgraded()
	}
	if upgraded || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		x.call.MarkStream()
	}
	x.body.commit(a.body)
	x.arm()
	body := &answerBody{exchange: x, ctx: a.ctx, body: res.Body, result: result}
	res.Body = body
	if rw, ok := body.body.(io.ReadWriter); ok && upgraded {
		res.Body = &upgradedBody{answerBody: body, writer: rw}
	}
}

// abandon ends the attempts that nobody waits for any more: all but one. x.mu
// is held.
func (x *exchange) abandon(but *attempt) {
	now := x.server.now()
	for _, a := range slices.Clone(x.live) {
		if a != but {
			x.call.Abandon(&a.policy, now, rand.Uint64())
			x.forget(a, policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "another attempt answered first")
			a.cut()
		}
	}
}

// forget takes an attempt whose books are closed off the list. x.mu is held.
func (x *exchange) forget(a *attempt, r policy.Result, message string) {
	if i := slices.Index(x.live, a); i >= 0 {
		x.live = slices.Delete(x.live, i, i+1)
	}
	if x.trace != nil {
		x.trace.EndAttempt(x.server.now(), a.number, r, message)
	}
}

// cut ends what the attempt still does.
func (a *attempt) cut() {
	if a.body != nil {
		_ = a.body.Close() // what can be done about one that fails?
	}
	a.cancel()
}
