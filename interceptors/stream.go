package interceptors

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Stream returns the interceptor of streams. Unary timeouts don't hold for
// them; max_duration and the caller's deadline do.
func (c *Client) Stream() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		s := &stream{client: c, caller: ctx, single: !desc.ServerStreams}
		if err := c.begin(ctx, &s.call, method); err != nil {
			return nil, err
		}
		s.call.MarkStream()
		s.limited, s.cancel = context.WithCancelCause(ctx)
		if d := s.call.Method().Policy().Stream.MaxDuration; d > 0 {
			limited, cancel := context.WithTimeoutCause(s.limited, d, errTimeout)
			s.limited, s.release = limited, cancel
		}
		inner, err := open(s.limited, desc, cc, method, options...)
		if err != nil {
			return nil, s.end(err)
		}
		s.ClientStream = inner
		// A caller that gives up and never looks again still ends the call.
		s.watch(context.AfterFunc(s.limited, func() { _ = s.end(context.Cause(s.limited)) }))
		return s, nil
	}
}

// stream reports how a stream ended, once.
type stream struct {
	grpc.ClientStream
	client  *Client
	caller  context.Context
	limited context.Context
	cancel  context.CancelCauseFunc
	release context.CancelFunc // of max_duration's timer; nil: none
	single  bool               // one answer, then the end

	once  sync.Once
	call  policy.Call
	final error // what end made of the error

	mu        sync.Mutex
	stopWatch func() bool // nil until the stream is open
}

// watch notes how to stop looking at the context.
func (s *stream) watch(stop func() bool) {
	s.mu.Lock()
	s.stopWatch = stop
	s.mu.Unlock()
}

// RecvMsg implements grpc.ClientStream.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	switch {
	case err != nil:
		return s.end(err)
	case s.single:
		_ = s.end(io.EOF)
	}
	return nil
}

// end records the stream's end and returns the error that the caller sees.
func (s *stream) end(err error) error {
	s.once.Do(func() {
		s.final = err
		result := policy.Result{Code: policy.OK}
		if !errors.Is(err, io.EOF) {
			limit := s.call.Method().Policy().Stream.MaxDuration
			cause := err
			if errors.Is(err, errTimeout) {
				cause = context.DeadlineExceeded
			}
			result, s.final = s.client.judge(s.caller, s.limited, &s.call, grpcError(cause), "stream.max_duration", limit)
		}
		s.call.End(s.client.now(), result, rand.Uint64())
	})
	s.mu.Lock()
	stop := s.stopWatch
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
	s.cancel(nil)
	if s.release != nil {
		s.release()
	}
	if errors.Is(err, io.EOF) {
		return err
	}
	return s.final
}
