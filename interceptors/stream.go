package interceptors

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

// stream is one gRPC stream. It has one attempt, and holds its place in the
// concurrency limit as long as it lives. How it ended is said once: by what
// RecvMsg or SendMsg meets, by a limit of the policy, or by the end of its
// context where the caller looks no more.
type stream struct {
	grpc.ClientStream
	life
	single   bool // one answer, then the end
	idle     bool // idle_timeout is to hear of messages
	recorded bool
	final    error
	stop     func() bool // ends the watch on the context; nil until the stream is open
}

// streams returns the interceptor of streams.
func (c *Client) streams(balanced bool) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		m := c.service.Method(method)
		if err := c.endpointKnown(m, balanced); err != nil {
			return nil, err
		}
		limits := m.Policy().Stream
		s := &stream{single: !desc.ServerStreams, idle: limits.IdleTimeout > 0}
		s.client, s.door, s.ctx, s.balanced = c, s, ctx, balanced
		s.waits, s.severs = waitsForReady(options), limits != policy.StreamLimits{}
		now := c.now()
		s.arrive(m, now, s.said(m))
		s.call.MarkStream()
		if !s.admit(now) {
			return nil, s.finish(nil)
		}
		a := s.next()
		if err := s.open(a); err != nil {
			return nil, s.finish(err)
		}
		inner, err := open(a, desc, cc, method, options...)
		if err != nil {
			return nil, s.finish(err)
		}
		s.ClientStream = inner
		if balanced && !s.picked() && !c.balances(cc) {
			err := errOtherBalancer(cc)
			a.sever()
			return nil, s.finish(err)
		}
		s.watch(a)
		return s, nil
	}
}

func waitsForReady(options []grpc.CallOption) (waits bool) {
	for _, o := range options {
		if o, ok := o.(grpc.FailFastCallOption); ok {
			waits = !o.FailFast
		}
	}
	return waits
}

// open begins the attempt.
func (s *stream) open(a *attempt) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.client.now()
	if a.refusal = s.start(a, now); a.refusal != nil {
		return Error(a.refusal)
	}
	s.arm(now)
	return nil
}

// picked reports whether the core knows of the attempt.
func (s *stream) picked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first.core.Live() || s.over
}

// watch hears of the context's end: a caller that gives up and never looks
// again still ends the call.
func (s *stream) watch(a *attempt) {
	stop := context.AfterFunc(a.Context, func() { _ = s.finish(a.Context.Err()) })
	s.mu.Lock()
	s.stop = stop
	recorded := s.recorded
	s.mu.Unlock()
	if recorded {
		stop()
	}
}

// start implements door.
func (s *stream) start(a *attempt, now policy.Instant) *policy.Refusal {
	if s.balanced {
		return nil
	}
	return s.call.Send(now, rand.Uint64(), &a.core)
}

// send implements door; a stream is sent by its caller.
func (s *stream) send(*attempt) {}

// judge implements door; see finish.
func (s *stream) judge(*attempt) policy.Ending { return policy.Ending{} }

// ready implements door: a stream is never sent twice.
func (s *stream) ready() bool { return false }

// overrun implements door: once a stream has ended nothing is due.
func (s *stream) overrun(policy.Instant) {}

// SendMsg implements grpc.ClientStream.
func (s *stream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	s.touch()
	return err // io.EOF says that RecvMsg knows why
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err != nil:
		return s.finish(err)
	case s.single:
		_ = s.finish(io.EOF)
	default:
		s.touch()
	}
	return nil
}

// touch tells the core that a message moved.
func (s *stream) touch() {
	if !s.idle {
		return
	}
	s.mu.Lock()
	if !s.over {
		s.call.Touch(s.client.now())
	}
	s.mu.Unlock()
}

// finish records the stream's end, once, and returns the error that the caller
// sees. err is nil where the stream was refused at the door.
func (s *stream) finish(err error) error {
	s.mu.Lock()
	if s.recorded {
		final := s.final
		s.mu.Unlock()
		return s.seen(err, final)
	}
	s.recorded = true
	now := s.client.now()
	if !s.over {
		s.judgeEnd(err, now)
	}
	s.final = err
	switch {
	case s.refusal != nil:
		s.final = s.refused(s.refusal, now)
	case err == nil:
		s.final = grpcError(s.ctx.Err())
	case !errors.Is(err, io.EOF):
		s.final = grpcError(err)
	}
	final, stop := s.final, s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
	s.end()
	s.first.sever()
	return s.seen(err, final)
}

// seen is what a caller sees that asks for the end again.
func (s *stream) seen(err, final error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return final
}

// judgeEnd tells the core how the attempt ended. s.mu is held.
func (s *stream) judgeEnd(err error, now policy.Instant) {
	a := &s.first
	r := policy.Result{Code: policy.OK}
	switch {
	case a.refusal != nil:
		r = policy.Refused(a.refusal)
	case !errors.Is(err, io.EOF):
		r.Code = policy.Code(status.Code(grpcError(err)))
		s.callersEnd(a, &r)
	}
	if a.core.Live() {
		s.call.Settle(&a.core, now, r, rand.Uint64())
	}
	s.decide(a, r, now)
}

// refused says why the stream was refused, or what answers it instead. A
// fallback with a response message is for unary calls.
func (s *stream) refused(r *policy.Refusal, now policy.Instant) error {
	if s.call.Method().Policy().Fallback.Code != policy.OK {
		if f := s.call.Fallback(r); f != nil {
			s.event("fallback")
			s.result.Code = f.Code
			r.Status, r.Message = f.Code, f.Message
			return Error(r)
		}
	}
	s.refusalEvent(r)
	return Error(r)
}
