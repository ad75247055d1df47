package forward

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// exchange is one request and its answer: one policy.Call, of one attempt or of
// several. Until there is an answer everything is decided on the request's own
// goroutine; each attempt has one that waits for its endpoint.
type exchange struct {
	server *Server
	client *client
	target Target
	in     *http.Request
	out    *http.Request // what attempts send copies of
	asked  metadata
	ctx    context.Context
	cancel context.CancelCauseFunc
	signal chan struct{} // something may be due, or the wait is over
	ended  chan *attempt // those that have an answer, or failed
	work   sync.WaitGroup
	body   *replay // nil until the request is sent

	repeatable bool // it may be processed twice
	keeps      bool // its body is kept to be sent again

	mu        sync.Mutex
	known     bool // a service was found: call is in use
	call      policy.Call
	live      []*attempt // under way
	last      *attempt   // the one sent last
	winner    *attempt   // the one whose answer is passed on
	trace     policy.Trace
	faulted   bool // the span says so
	timer     *time.Timer
	over      bool
	start     policy.Instant
	sentAt    policy.Instant
	bytesUp   uint64
	bytesDown uint64
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(clientKey{}).(*client)
	if !ok {
		panic("forward: a request without its connection")
	}
	if r.Method == http.MethodConnect {
		s.connect(w, r, c)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	x := &exchange{
		server: s, client: c, in: r, asked: takeMetadata(r.Header), ctx: ctx, cancel: cancel,
		signal: make(chan struct{}, 1), ended: make(chan *attempt), start: s.now(),
	}
	defer x.close()
	defer func() {
		if p := recover(); p != nil {
			c.broken.Store(true)
			panic(p) // net/http ends the connection
		}
	}()
	refusal := x.begin()
	if refusal == nil {
		var err error
		if refusal, err = x.enter(); err != nil {
			x.gone("the caller closed its connection")
		}
	}
	if refusal != nil {
		x.refuse(w, refusal)
		return
	}
	s.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
	x.end(policy.Result{Code: policy.OK}, "") // nothing, where the answer's body ended it
}

// close waits for what the exchange started.
func (x *exchange) close() {
	x.cancel(nil)
	x.work.Wait()
	if x.body != nil {
		x.body.finish()
	}
}

// gone ends an exchange without an answer: nobody is there to read it.
func (x *exchange) gone(why string) {
	x.end(policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, why)
	panic(http.ErrAbortHandler)
}

// rewrite makes the request that goes out of the one that came in: the same,
// without what holds for one hop only.
func rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = p.In.Host
	p.Out.Host = p.In.Host
	for _, name := range [...]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = v
		}
	}
	p.Out.Header.Del("Proxy-Authorization")
}

// explain adds what outrigger-explain asks for.
func explain(res *http.Response) error {
	if x := exchangeOf(res.Request.Context()); x != nil && x.asked.explain {
		x.explanation(res.Header)
	}
	return nil
}

func (x *exchange) explanation(h http.Header) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if endpoint := x.endpoint(); endpoint != "" {
		h.Set("Outrigger-Endpoint", endpoint)
	}
	attempts, spent := 0, x.server.now()-x.start
	if x.known {
		attempts = x.call.Attempts()
	}
	if x.sentAt != 0 {
		spent = x.sentAt - x.start
	}
	h.Set("Outrigger-Attempts", strconv.Itoa(attempts))
	h.Set("Outrigger-Policy-Time-Us", strconv.FormatInt(spent.Microseconds(), 10))
}

// endpoint is the one that answered, or the one tried last; empty: none was.
// x.mu is held.
func (x *exchange) endpoint() string {
	switch {
	case x.winner != nil:
		return x.winner.address
	case x.last != nil:
		return x.last.address
	}
	return ""
}

// failed implements httputil.ReverseProxy's ErrorHandler.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		x.refuse(w, refused.Refusal)
	case errors.Is(err, errCallerBroke):
		x.gone(errCallerBroke.Error())
	case x.in.Context().Err() != nil:
		x.gone("the caller closed its connection")
	default:
		x.refuse(w, x.call.Refuse(policy.Protocol, "", err.Error()))
	}
}

// refuse answers for the upstream.
func (x *exchange) refuse(w http.ResponseWriter, refusal *policy.Refusal) {
	if x.asked.explain {
		x.explanation(w.Header())
	}
	x.end(policy.Refused(refusal), refusal.Message)
	if x.body != nil && x.body.waits() {
		// net/http answers only once nobody reads the request any more.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now())
	}
	writeRefusal(w, refusal)
}

func writeRefusal(w http.ResponseWriter, refusal *policy.Refusal) {
	h := w.Header()
	h.Set("Content-Type", policy.ProblemType)
	h.Set("Outrigger-Reason", refusal.Reason.String())
	if seconds := refusal.RetryAfterSeconds(); seconds != "" {
		h.Set("Retry-After", seconds)
	}
	w.WriteHeader(policy.HTTPStatus(refusal.Code()))
	_, _ = w.Write(refusal.Problem()) // who does not read it is gone
}

// end closes the books, once, and lets in who waited for it.
func (x *exchange) end(r policy.Result, message string) { policy.Wake(x.settle(r, message)) }

// settle closes the books, once. It returns the calls that may go on now.
func (x *exchange) settle(r policy.Result, message string) (woken []*policy.Waiter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return nil
	}
	x.over = true
	if x.timer != nil {
		x.timer.Stop()
	}
	now := x.server.now()
	record := policy.Record{
		Method: x.in.URL.Path, Authority: x.in.Host, Peer: peerName(x.client), Endpoint: x.endpoint(),
		Code: r.Code, Reason: r.Reason, Message: message, Start: x.start, End: now,
		RequestBytes: x.bytesUp, ResponseBytes: x.bytesDown,
	}
	for len(x.live) > 0 {
		a := x.live[0]
		x.call.Settle(&a.policy, now, r, rand.Uint64())
		x.forget(a, r, message)
	}
	if x.known {
		record.Service, record.Method, record.Attempts = x.target.Service.Name(), x.call.Method().Name(), x.call.Attempts()
		woken = x.call.End(now, r, rand.Uint64())
	}
	if x.trace != nil {
		record.TraceID = x.trace.TraceID()
		x.trace.End(now, &record)
	}
	if o := x.server.options.Observer; o != nil {
		o.CallEnded(&record)
	}
	return woken
}
