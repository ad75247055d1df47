package conformance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/interceptors"
	"github.com/outrigger-rpc/outrigger/policy"
)

// interceptDoor calls the interceptors as grpc-go does, with an invoker that
// holds every attempt until the script answers it. It lives in a synctest
// bubble. A row about endpoints goes through a ClientConn with the balancer
// instead, to servers that hold every request.
type interceptDoor struct {
	service *policy.Service
	client  *interceptors.Client
	origin  time.Time
	conn    *grpc.ClientConn // nil: there is the invoker alone
	servers []*grpc.Server
	serving sync.WaitGroup

	mu    sync.Mutex
	calls map[string]*intercepting
}

// intercepting is a call under way or over.
type intercepting struct {
	door    *interceptDoor
	cancel  context.CancelFunc
	tries   []*try
	stream  grpc.ClientStream // nil: it is unary, or not open yet
	outcome string
}

// try is an attempt as the invoker sees it.
type try struct {
	number   int
	endpoint string // empty: it is not known
	answers  chan how
	heads    chan struct{}
	answered bool
	over     bool
}

func newInterceptDoor(r *row) (*interceptDoor, error) {
	d := &interceptDoor{service: newService(r, addresses(r.endpoints())...), origin: time.Now().Add(-epoch), calls: make(map[string]*intercepting)}
	var err error
	d.client, err = interceptors.New(interceptors.Options{Service: d.service, Origin: d.origin})
	if err == nil && r.aboutEndpoints() {
		err = d.connect()
	}
	return d, err
}

// aboutEndpoints reports whether the row is about which endpoint a call goes
// to.
func (r *row) aboutEndpoints() bool {
	p := r.settings.Policy
	return r.endpoints() > 0 && (p.Breaker.Scope == policy.ScopeEndpoint || p.LoadBalancing.Policy == balancer.RoundRobin ||
		slices.ContainsFunc(r.Script, func(s step) bool { return s.Drain != "" }))
}

func (d *interceptDoor) arrive(name string, w with) error {
	ctx, cancel := context.WithCancel(context.Background())
	if w.Timeout != nil {
		ctx, cancel = context.WithTimeout(ctx, *w.Timeout)
	}
	for k, v := range w.Metadata {
		ctx = metadata.AppendToOutgoingContext(ctx, k, v)
	}
	if w.Criticality != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "outrigger-criticality", w.Criticality)
	}
	if w.NoRetry {
		ctx = metadata.AppendToOutgoingContext(ctx, "outrigger-retry", "off")
	}
	c := &intercepting{door: d, cancel: cancel}
	d.calls[name] = c
	go func() {
		var err error
		switch {
		case w.Stream:
			err = c.runStream(ctx, w.method())
		case d.conn != nil:
			err = d.conn.Invoke(metadata.AppendToOutgoingContext(ctx, callKey, name), w.method(), new(emptypb.Empty), new(emptypb.Empty))
		default:
			err = d.client.Unary()(ctx, w.method(), new(emptypb.Empty), new(emptypb.Empty), nil, c.invoke)
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if c.outcome == "" {
			c.outcome = c.judge(err)
		}
	}()
	synctest.Wait()
	return nil
}

// judge says what the caller's error means. d.mu is held.
func (c *intercepting) judge(err error) string {
	var refusal *policy.Refusal
	if errors.As(err, &refusal) {
		if refusal.Status != policy.OK && refusal.Reason != policy.FaultInjected {
			return fallback(refusal.Status)
		}
		return refused(refusal)
	}
	if err == nil && !slices.ContainsFunc(c.tries, func(t *try) bool { return t.answered }) {
		return fallback(policy.OK)
	}
	return returned(policy.Code(status.Code(err)))
}

func (c *intercepting) begin(endpoint string) *try {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	t := &try{number: len(c.tries) + 1, endpoint: endpoint, answers: make(chan how, 1), heads: make(chan struct{}, 1)}
	c.tries = append(c.tries, t)
	return t
}

func (c *intercepting) end(t *try, answered bool) {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	t.over, t.answered = true, answered
}

// invoke implements grpc.UnaryInvoker.
func (c *intercepting) invoke(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, options ...grpc.CallOption) error {
	t := c.begin("")
	select {
	case h := <-t.answers:
		c.end(t, true)
		return h.grpc(options)
	case <-ctx.Done():
		c.end(t, false)
		return status.FromContextError(ctx.Err()).Err()
	}
}

// grpc is the error that grpc-go would return, and the trailers.
func (h how) grpc(options []grpc.CallOption) error {
	switch {
	case h.Unreached:
		return status.Error(codes.Unavailable, "connection error: desc = \"connection refused\"")
	case h.Unprocessed:
		return status.Error(codes.Unavailable, "stream terminated by RST_STREAM with error code: REFUSED_STREAM")
	case h.Lost:
		return status.Error(codes.Unavailable, "error reading from server: EOF")
	}
	trailer := metadata.Pairs("content-type", "application/grpc")
	if h.Pushback != nil {
		ms := max(time.Duration(*h.Pushback).Milliseconds(), -1)
		trailer.Set("grpc-retry-pushback-ms", fmt.Sprint(ms))
		if *h.Pushback < 0 {
			trailer.Set("grpc-retry-pushback-ms", "-1")
		}
	}
	for _, o := range options {
		if o, ok := o.(grpc.TrailerCallOption); ok {
			*o.TrailerAddr = trailer
		}
	}
	return status.Error(codes.Code(h.Code), "as the script says")
}

// runStream opens a stream and reads to its end.
func (c *intercepting) runStream(ctx context.Context, method string) error {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := c.door.client.Stream()(ctx, desc, nil, method, func(ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
		return &heldStream{ctx: ctx, call: c, try: c.begin("")}, nil
	})
	if err != nil {
		return err
	}
	c.door.mu.Lock()
	c.stream = s
	c.door.mu.Unlock()
	if err := s.SendMsg(new(emptypb.Empty)); err != nil {
		return err
	}
	for {
		if err := s.RecvMsg(new(emptypb.Empty)); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// heldStream is a stream whose server does what the script says.
type heldStream struct {
	grpc.ClientStream
	ctx  context.Context
	call *intercepting
	try  *try
}

// SendMsg implements grpc.ClientStream.
func (s *heldStream) SendMsg(any) error { return nil }

// RecvMsg implements grpc.ClientStream.
func (s *heldStream) RecvMsg(any) error {
	select {
	case <-s.try.heads:
		return nil
	case h := <-s.try.answers:
		s.call.end(s.try, true)
		if err := h.grpc(nil); err != nil {
			return err
		}
		return io.EOF
	case <-s.ctx.Done():
		s.call.end(s.try, false)
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

// find returns an attempt under way; 0: the latest.
func (d *interceptDoor) find(name string, number int) (*try, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.calls[name]; c != nil {
		for _, t := range slices.Backward(c.tries) {
			if !t.over && (number == 0 || t.number == number) {
				return t, nil
			}
		}
	}
	return nil, fmt.Errorf("no attempt %d is under way", number)
}

func (d *interceptDoor) answer(name string, h how) error {
	t, err := d.find(name, h.Attempt)
	if err != nil {
		return err
	}
	t.answers <- h
	synctest.Wait()
	return nil
}

func (d *interceptDoor) head(name string, h how) error {
	t, err := d.find(name, h.Attempt)
	if err != nil {
		return err
	}
	t.heads <- struct{}{}
	synctest.Wait()
	return nil
}

func (d *interceptDoor) say(name string) error {
	d.mu.Lock()
	s := d.calls[name].stream
	d.mu.Unlock()
	if s == nil {
		return errors.New("it is no stream, or not open")
	}
	err := s.SendMsg(new(emptypb.Empty))
	synctest.Wait()
	return err
}

func (d *interceptDoor) cancel(name string) error {
	d.mu.Lock()
	c := d.calls[name]
	if c.outcome == "" {
		c.outcome = canceled
	}
	d.mu.Unlock()
	c.cancel()
	synctest.Wait()
	return nil
}

func (d *interceptDoor) advance(to time.Duration) error {
	time.Sleep(epoch + to - d.now())
	synctest.Wait()
	return nil
}

func (d *interceptDoor) state(name string) state {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.calls[name]
	switch {
	case c == nil:
		return state{text: "absent"}
	case c.outcome != "":
		return state{text: c.outcome}
	}
	var numbers []int
	var at []string
	for _, t := range c.tries {
		if t.over {
			continue
		}
		if numbers = append(numbers, t.number); t.endpoint != "" {
			at = append(at, t.endpoint)
		}
	}
	if len(numbers) == 0 {
		return state{text: waits}
	}
	return state{text: underWay(numbers...), at: at}
}

func (d *interceptDoor) reload(s policy.Settings) error {
	d.service.Update(s)
	synctest.Wait()
	return nil
}

func (d *interceptDoor) subject() *policy.Service { return d.service }

func (d *interceptDoor) now() policy.Instant { return time.Since(d.origin) }

func (d *interceptDoor) close() error {
	for name := range d.calls {
		if err := d.cancel(name); err != nil {
			return err
		}
	}
	if d.conn != nil {
		d.conn.Close()
		for _, g := range d.servers {
			g.Stop()
		}
		d.serving.Wait()
	}
	return nothingHeld(d.service, d.now())
}

// callKey is the metadata by which a server knows a call.
const callKey = "call"

// connect makes a ClientConn to a server for each endpoint.
func (d *interceptDoor) connect() error {
	listeners := make(map[string]*bufconn.Listener)
	for _, e := range d.service.Endpoints().All() {
		l := bufconn.Listen(64 << 10)
		listeners[e.Address()] = l
		g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error { return d.hold(e.Address(), s) }))
		d.servers = append(d.servers, g)
		d.serving.Go(func() { _ = g.Serve(l) }) // until Stop
	}
	var err error
	d.conn, err = grpc.NewClient("outrigger:///subject", append(d.client.DialOptions(), grpc.WithIdleTimeout(0), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return listeners[address].DialContext(ctx)
		}))...)
	if err != nil {
		return err
	}
	d.conn.Connect()
	synctest.Wait()
	return nil
}

// hold holds a request at a server until the script answers it.
func (d *interceptDoor) hold(endpoint string, s grpc.ServerStream) error {
	if err := s.RecvMsg(new(emptypb.Empty)); err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(s.Context())
	d.mu.Lock()
	c := d.calls[md.Get(callKey)[0]]
	d.mu.Unlock()
	t := c.begin(endpoint)
	select {
	case h := <-t.answers:
		c.end(t, true)
		if h.Code == 0 {
			return s.SendMsg(new(emptypb.Empty))
		}
		return h.grpc(nil)
	case <-s.Context().Done():
		c.end(t, false)
		return status.FromContextError(s.Context().Err()).Err()
	}
}
