package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// connectMethod names tunnels where calls have a method.
const connectMethod = "CONNECT"

// connect answers CONNECT: the client is told that it is connected, and what it
// sends then decides what becomes of it.
func (s *Server) connect(w http.ResponseWriter, r *http.Request, c *client) {
	target := r.Host
	if _, _, err := net.SplitHostPort(target); err != nil {
		writeRefusal(w, &policy.Refusal{Reason: policy.NoRoute, Message: fmt.Sprintf("CONNECT %q: want host:port", target)})
		return
	}
	if why, ok := s.options.Reaches(target); !ok {
		refusal := &policy.Refusal{Reason: policy.NoRoute, Message: why}
		now := s.now()
		s.record(&policy.Record{Method: connectMethod, Authority: target, Peer: peerName(c), Code: refusal.Code(), Reason: refusal.Reason, Message: why, Start: now, End: now})
		writeRefusal(w, refusal)
		return
	}
	_, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeRefusal(w, &policy.Refusal{Reason: policy.Protocol, Message: "CONNECT: " + err.Error()})
		return
	}
	early := make([]byte, buffered.Reader.Buffered())
	_, _ = io.ReadFull(buffered.Reader, early) // they are in memory
	_ = c.Conn.SetDeadline(time.Time{})
	if _, err := c.Conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		c.Conn.Close()
		return
	}
	if err := s.options.Tunnel(c.Conn, early, target); err != nil {
		s.options.Logger.Error("CONNECT", "peer", peerName(c), "error", err)
	}
}

func (s *Server) record(r *policy.Record) {
	if o := s.options.Observer; o != nil {
		o.CallEnded(r)
	}
}

// tunnel is a connection whose bytes nobody here understands.
type tunnel struct {
	server *Server
	client net.Conn
	target string
	ctx    context.Context // ends when the tunnel is cut off
	cancel context.CancelFunc
	signal chan struct{} // its call may be let in

	upstream net.Conn // nil until connected; guarded by Server.mu
	up, down atomic.Uint64
	touched  atomic.Int64 // Instant
}

// Opaque implements relay.Guests.
func (s *Server) Opaque(nc net.Conn, target string) {
	t := &tunnel{server: s, client: nc, target: target, signal: make(chan struct{}, 1)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		t.cancel()
		nc.Close()
		return
	}
	s.tunnels[t] = struct{}{}
	s.work.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.work.Done()
		t.run()
		t.cancel()
		nc.Close()
		s.mu.Lock()
		delete(s.tunnels, t)
		s.mu.Unlock()
	}()
}

// endTunnels waits until ctx ends for tunnels to finish, then cuts them off.
func (s *Server) endTunnels(ctx context.Context) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		s.mu.Lock()
		left := len(s.tunnels)
		s.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-poll.C:
			continue
		case <-ctx.Done():
		}
		s.mu.Lock()
		for t := range s.tunnels {
			t.cancel()
			t.client.Close()
			if t.upstream != nil {
				t.upstream.Close()
			}
		}
		s.mu.Unlock()
		return ctx.Err()
	}
}

// run connects the tunnel and moves bytes until either side is done.
func (t *tunnel) run() {
	s := t.server
	start := s.now()
	record := policy.Record{Method: connectMethod, Authority: t.target, Peer: peerName(t.client), Start: start}
	defer func() {
		record.End = s.now()
		record.RequestBytes, record.ResponseBytes = t.up.Load(), t.down.Load()
		s.record(&record)
	}()
	refused := func(r *policy.Refusal) { record.Code, record.Reason, record.Message = r.Code(), r.Reason, r.Message }
	target, why := s.options.Route(Query{Authority: t.target})
	if target.Service == nil {
		refused(&policy.Refusal{Reason: policy.NoRoute, Message: why})
		return
	}
	record.Service = target.Service.Name()
	var call policy.Call
	method := target.Service.Method(connectMethod)
	hash, hashed := method.Hash(peerName(t.client), nil, "")
	call.Begin(method, start, policy.Arrival{Hash: hash, Hashed: hashed, Timeout: policy.NoTimeout, Owner: t})
	call.MarkStream()
	var endpoint *balancer.Endpoint
	refusal := t.enter(&call)
	if refusal == nil {
		endpoint, refusal = t.dial(&call, target, &record)
	}
	record.Attempts = call.Attempts()
	if refusal != nil {
		refused(refusal)
		policy.Wake(call.End(s.now(), policy.Refused(refusal), rand.Uint64()))
		return
	}
	// What the policies judge is the connect: the rest is the two ends' own.
	streams := call.Method().Policy().Stream
	policy.Wake(call.End(s.now(), policy.Result{Code: policy.OK}, rand.Uint64()))
	defer func() { endpoint.End(s.now(), 0, false) }()
	if why := t.splice(streams); why != "" {
		record.Code, record.Reason, record.Message = policy.Timeout.Code(), policy.Timeout, why
	}
}

// enter waits until the policies let the tunnel in, or say why not.
func (t *tunnel) enter(call *policy.Call) *policy.Refusal {
	for {
		admission := call.Admit(t.server.now(), rand.Uint64())
		policy.Wake(call.Woken())
		if !admission.Wait {
			return admission.Refusal
		}
		if refusal := t.wait(call, call.Expiry(nil)); refusal != nil {
			return refusal
		}
	}
}

// wait returns at an instant, or earlier when the tunnel's call was woken. Zero:
// only then. The refusal says that there is no use in going on.
func (t *tunnel) wait(call *policy.Call, until policy.Instant) *policy.Refusal {
	var due <-chan time.Time
	if until != 0 {
		timer := time.NewTimer(max(until-t.server.now(), 0))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-due:
	case <-t.signal:
	case <-t.ctx.Done():
		return call.Refuse(policy.Draining, "", "the agent is shutting down")
	}
	return call.Expire(t.server.now(), nil)
}

// Wake implements policy.Waker.
func (t *tunnel) Wake() {
	select {
	case t.signal <- struct{}{}:
	default: // it is going to look in any case
	}
}

// dial connects to an endpoint, and to another one where that fails. The
// endpoint returned counts the tunnel as under way until its End.
func (t *tunnel) dial(call *policy.Call, target Target, record *policy.Record) (*balancer.Endpoint, *policy.Refusal) {
	s := t.server
	for {
		var attempt policy.Attempt
		if refusal := call.Pick(s.now(), rand.Uint64(), &attempt); refusal != nil {
			return nil, refusal
		}
		endpoint := attempt.Endpoint
		record.Endpoint = endpoint.Address()
		nc, err := t.dialRaw(target.Transport, endpoint.Address())
		if err == nil {
			endpoint.Begin()
			call.Settle(&attempt, s.now(), policy.Result{Code: policy.OK}, rand.Uint64())
			s.mu.Lock()
			t.upstream = nc
			closed := s.closed
			s.mu.Unlock()
			if closed {
				t.client.SetReadDeadline(time.Now()) //nolint:errcheck // it is closing either way
			}
			return endpoint, nil
		}
		var connect *connectError
		if !errors.As(err, &connect) {
			connect = &connectError{policy.ConnectFailed, err.Error()}
		}
		refusal := call.Refuse(connect.reason, endpoint.Address(), fmt.Sprintf("endpoint %s can't be reached: %s", endpoint.Address(), connect.why))
		verdict := call.Finish(&attempt, s.now(), policy.Ending{Result: policy.Refused(refusal), Unreached: true, Committed: t.ctx.Err() != nil}, rand.Uint64())
		if verdict.Action != policy.Again {
			return nil, refusal
		}
		for call.Due(s.now(), false) != policy.Another {
			if refusal := t.wait(call, verdict.At); refusal != nil {
				return nil, refusal
			}
		}
	}
}

// dialRaw connects without TLS of ours: what the tunnel carries is the client's
// own.
func (t *tunnel) dialRaw(transport Transport, address string) (net.Conn, error) {
	s := t.server
	ctx, cancel := context.WithTimeout(t.ctx, s.options.ConnectTimeout)
	defer cancel()
	nc, err := transport.Dial(ctx, address)
	if err != nil {
		return nil, &connectError{policy.ConnectFailed, s.plain(ctx, err)}
	}
	return nc, nil
}

// splice moves bytes both ways until both sides are done, or a limit is
// reached: then it says which.
func (t *tunnel) splice(limits policy.StreamLimits) (why string) {
	s := t.server
	t.touched.Store(int64(s.now()))
	stop := make(chan string, 1)
	end := func(why string) {
		select {
		case stop <- why:
		default:
		}
		t.client.Close()
		t.upstream.Close()
	}
	if d := limits.MaxDuration; d > 0 {
		timer := time.AfterFunc(d, func() { end(fmt.Sprintf("the tunnel reached its stream.max_duration of %v", d)) })
		defer timer.Stop()
	}
	if d := limits.IdleTimeout; d > 0 {
		var timer *time.Timer
		var mu sync.Mutex
		mu.Lock()
		timer = time.AfterFunc(d, func() {
			mu.Lock()
			defer mu.Unlock()
			if left := d - (s.now() - policy.Instant(t.touched.Load())); left > 0 {
				timer.Reset(left)
				return
			}
			end(fmt.Sprintf("neither side of the tunnel sent anything for the stream.idle_timeout of %v", d))
		})
		mu.Unlock()
		defer timer.Stop()
	}
	var both sync.WaitGroup
	both.Go(func() { t.move(t.upstream, t.client, &t.up) })
	both.Go(func() { t.move(t.client, t.upstream, &t.down) })
	both.Wait()
	t.upstream.Close()
	select {
	case why = <-stop:
	default:
	}
	return why
}

// move copies one direction and passes its end on.
func (t *tunnel) move(to, from net.Conn, count *atomic.Uint64) {
	p := copyBuffers.Get()
	defer copyBuffers.Put(p)
	for {
		n, err := from.Read(p)
		if n > 0 {
			count.Add(uint64(n))
			t.touched.Store(int64(t.server.now()))
			if _, werr := to.Write(p[:n]); werr != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				to.Close() // lost, not finished
				return
			}
			if half, ok := to.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
				to.Close()
			}
			return
		}
	}
}
