package conformance

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// permitDoor asks ResilienceService for a permit before each attempt and
// reports how it ended, as any program could. It lives in a synctest bubble.
// Like such a program it minds its permits' time itself: what takes longer is
// reported as DEADLINE_EXCEEDED.
type permitDoor struct {
	service *policy.Service
	origin  time.Time
	server  *api.Server
	served  chan error
	conn    *grpc.ClientConn
	client  outriggerv1.ResilienceServiceClient

	mu    sync.Mutex
	calls map[string]*permitted
}

// permitted is a call as its program lives it.
type permitted struct {
	door     *permitDoor
	ctx      context.Context
	cancel   context.CancelFunc
	permit   *outriggerv1.Permit // held now, or nil
	number   int                 // of its attempt
	deadline *time.Timer
	outcome  string
}

// agent is what the API shows of an agent with one service.
type agent struct{ service *policy.Service }

// Info implements api.Agent.
func (agent) Info() api.Info { return api.Info{} }

// Services implements api.Agent.
func (a agent) Services() []*policy.Service { return []*policy.Service{a.service} }

func (a agent) TaskPromises() []api.Promise { return nil }

// Traffic implements api.Agent.
func (agent) Traffic() api.Traffic { return api.Traffic{} }

// Reload implements api.Agent.
func (agent) Reload(context.Context) error { return nil }

func (agent) Note(*balancer.Endpoint) string { return "" }

func (agent) Drained(string, string, bool) {}

func (agent) Discovery(string) (api.Discovery, bool) { return api.Discovery{}, false }

func newPermitDoor(r *row) (*permitDoor, error) {
	d := &permitDoor{service: newService(r, addresses(r.endpoints())...), origin: time.Now().Add(-epoch), served: make(chan error, 1), calls: make(map[string]*permitted)}
	d.server = api.New(api.Options{Origin: d.origin, Agent: agent{d.service}, Logger: slog.New(slog.DiscardHandler)})
	listener := bufconn.Listen(64 << 10)
	go func() { d.served <- d.server.Serve(listener) }()
	var err error
	d.conn, err = grpc.NewClient("passthrough:///agent", grpc.WithIdleTimeout(0), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		return nil, err
	}
	d.client = outriggerv1.NewResilienceServiceClient(d.conn)
	d.conn.Connect()
	synctest.Wait()
	return d, nil
}

func (d *permitDoor) arrive(name string, w with) error {
	q := &outriggerv1.AcquireRequest{Service: d.service.Name(), Method: w.method(), Idempotent: w.Idempotent, NoRetry: w.NoRetry, Metadata: w.Metadata,
		Criticality: outriggerv1.Criticality(outriggerv1.Criticality_value[w.Criticality])}
	if w.Timeout != nil {
		q.Timeout = durationpb.New(*w.Timeout)
	}
	c := &permitted{door: d}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	d.mu.Lock()
	d.calls[name] = c
	d.mu.Unlock()
	go func() {
		got, err := d.client.Acquire(c.ctx, q)
		c.take(got.GetPermit(), err, "")
	}()
	synctest.Wait()
	return nil
}

// take goes on with what an operation came to. ended is the outcome where
// nothing follows.
func (c *permitted) take(p *outriggerv1.Permit, err error, ended string) {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	switch {
	case c.outcome != "":
	case err != nil:
		s := status.Convert(err)
		c.outcome = "failed: " + s.Message()
		if reason := reasonIn(s.Proto()); reason != "" {
			c.outcome = "refused " + reason
		}
	case p == nil:
		c.outcome = ended
	default:
		c.permit, c.number = p, int(p.GetAttempt())
		limit := time.Duration(-1)
		for _, d := range []*durationpb.Duration{p.GetTimeout(), p.GetTryTimeout()} {
			if d != nil && (limit < 0 || d.AsDuration() < limit) {
				limit = d.AsDuration()
			}
		}
		if limit >= 0 {
			c.deadline = time.AfterFunc(limit, func() { c.late(p) })
		}
	}
}

// late reports an attempt that took longer than its permit says.
func (c *permitted) late(p *outriggerv1.Permit) {
	d := c.door
	d.mu.Lock()
	if c.permit != p || c.outcome != "" {
		d.mu.Unlock()
		return
	}
	c.permit = nil
	d.mu.Unlock()
	// Whose time it was that is over the books say.
	before := counts(d.service.Refusals())
	got, err := d.client.Report(c.ctx, &outriggerv1.ReportRequest{PermitId: p.GetId(), Code: int32(codes.DeadlineExceeded)})
	ended := returned(policy.DeadlineExceeded)
	for reason, n := range counts(d.service.Refusals()) {
		if n != before[reason] {
			ended = "refused " + reason
		}
	}
	c.take(got.GetPermit(), err, ended)
}

func (d *permitDoor) answer(name string, h how) error {
	d.mu.Lock()
	c := d.calls[name]
	if c == nil || c.permit == nil || h.Attempt != 0 && h.Attempt != c.number {
		d.mu.Unlock()
		return fmt.Errorf("no attempt %d is under way", h.Attempt)
	}
	q := &outriggerv1.ReportRequest{PermitId: c.permit.GetId(), Code: int32(h.ending().Code)}
	c.give()
	d.mu.Unlock()
	switch {
	case h.Unreached:
		q.Progress = outriggerv1.Progress_UNREACHED
	case h.Unprocessed:
		q.Progress = outriggerv1.Progress_UNPROCESSED
	case h.Lost:
		q.Progress = outriggerv1.Progress_LOST
	}
	if h.Pushback != nil {
		if q.Pushback = durationpb.New(time.Duration(*h.Pushback)); *h.Pushback < 0 {
			q.Pushback = durationpb.New(-time.Second)
		}
	}
	go func() {
		got, err := d.client.Report(c.ctx, q)
		c.take(got.GetPermit(), err, returned(h.ending().Code))
	}()
	synctest.Wait()
	return nil
}

// give notes that the permit is out of the program's hands. d.mu is held.
func (c *permitted) give() {
	c.permit = nil
	if c.deadline != nil {
		c.deadline.Stop()
	}
}

func (d *permitDoor) cancel(name string) error {
	d.mu.Lock()
	c := d.calls[name]
	if c.outcome == "" {
		c.outcome = canceled
	}
	p := c.permit
	c.give()
	d.mu.Unlock()
	if p != nil {
		if _, err := d.client.Report(c.ctx, &outriggerv1.ReportRequest{PermitId: p.GetId(), Code: int32(codes.Canceled), Final: true}); err != nil {
			return err
		}
	}
	c.cancel()
	synctest.Wait()
	return nil
}

func (d *permitDoor) say(string) error { return errNoStreams }

func (d *permitDoor) head(string, how) error { return errNoStreams }

var errNoStreams = fmt.Errorf("a permit knows of no messages: the row is not for this door")

func (d *permitDoor) advance(to time.Duration) error {
	time.Sleep(epoch + to - d.now())
	synctest.Wait()
	return nil
}

func (d *permitDoor) state(name string) state {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.calls[name]
	switch {
	case c == nil:
		return state{text: "absent"}
	case c.outcome != "":
		return state{text: c.outcome}
	case c.permit == nil:
		return state{text: waits}
	case c.permit.GetEndpoint() == "":
		return state{text: underWay(c.number)}
	}
	return state{text: underWay(c.number), at: []string{c.permit.GetEndpoint()}}
}

func (d *permitDoor) reload(s policy.Settings) error {
	d.service.Update(s)
	synctest.Wait()
	return nil
}

func (d *permitDoor) subject() *policy.Service { return d.service }

func (d *permitDoor) now() policy.Instant { return time.Since(d.origin) }

func (d *permitDoor) close() error {
	d.mu.Lock()
	var names []string
	for name := range d.calls {
		names = append(names, name)
	}
	d.mu.Unlock()
	slices.Sort(names)
	for _, name := range names {
		if err := d.cancel(name); err != nil {
			return err
		}
	}
	wrong := nothingHeld(d.service, d.now())
	d.conn.Close()
	d.server.Shutdown(context.Background())
	<-d.served
	return wrong
}
