// Package interceptors puts Outrigger's policies into a Go program without a
// sidecar: grpc-go client interceptors over a policy.Service.
//
//	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
//	client, err := interceptors.New(interceptors.Options{Service: service})
//	cc, err := grpc.NewClient(target, append(client.DialOptions(), …)...)
//
// Alive in this version: timeouts, the caller's deadline, circuit breakers by
// service and method, OBSERVE, and the SLA's windows. The ClientConn chooses
// the endpoint, so policies that need to know it are refused by New. What the
// client refuses is the same gRPC status that the agent answers, with ErrorInfo
// and RetryInfo.
package interceptors

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// Options make a Client.
type Options struct {
	// Service holds the policies and the live state; it must not be nil. One
	// may serve several ClientConns.
	Service *policy.Service
	// Origin is what the Service's instants count from. Zero: the start of the
	// process; set it when something else drives the Service too.
	Origin time.Time
}

// processOrigin is the origin where none is given: in the past, so that no
// instant is zero.
var processOrigin = time.Now().Add(-time.Second)

// Client makes interceptors. Safe for concurrent use.
type Client struct {
	service *policy.Service
	origin  time.Time
}

// New returns a Client, or says which policy of the service it can't honour.
func New(o Options) (*Client, error) {
	if o.Service == nil {
		return nil, errors.New("interceptors: Options.Service is nil; make one with policy.NewService")
	}
	for _, p := range o.Service.Policies() {
		if p.Breaker.Scope == policy.ScopeEndpoint && p.Breaker.Options.Mode != breaker.Off {
			return nil, errors.New("interceptors: a circuit breaker of scope ENDPOINT needs to know the endpoint, which the ClientConn chooses; want SERVICE or METHOD")
		}
		if p.Stream.IdleTimeout > 0 {
			return nil, errors.New("interceptors: stream.idle_timeout is not supported by this version; want max_duration, or the agent")
		}
	}
	if o.Origin.IsZero() {
		o.Origin = processOrigin
	}
	return &Client{service: o.Service, origin: o.Origin}, nil
}

// DialOptions returns what makes a ClientConn use both interceptors.
func (c *Client) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithChainUnaryInterceptor(c.Unary()), grpc.WithChainStreamInterceptor(c.Stream())}
}

func (c *Client) now() policy.Instant { return time.Since(c.origin) }

// begin admits a call.
func (c *Client) begin(ctx context.Context, call *policy.Call, method string) error {
	allowed := time.Duration(-1)
	if deadline, ok := ctx.Deadline(); ok {
		allowed = max(time.Until(deadline), 0)
	}
	if refusal := call.Begin(c.service.Method(method), c.now(), allowed, rand.Uint64()); refusal != nil {
		call.End(c.now(), policy.Refused(refusal), rand.Uint64())
		return Error(refusal)
	}
	call.Sent()
	return nil
}

// errTimeout is the cause of a context that a policy ended.
var errTimeout = errors.New("policy timeout")

// early is how much before the deadline that it was sent a server may say that
// it is over: its clock and ours don't tick together.
const early = 5 * time.Millisecond

// byPolicy reports whether the policy's deadline, not the caller's, is what a
// DEADLINE_EXCEEDED is about.
func byPolicy(caller, limited context.Context, limit time.Duration) bool {
	if errors.Is(context.Cause(limited), errTimeout) {
		return true
	}
	ours, ok := limited.Deadline()
	theirs, both := caller.Deadline()
	return limit > 0 && ok && caller.Err() == nil && time.Until(ours) < early && (!both || ours.Before(theirs))
}

// Unary returns the interceptor of unary calls.
func (c *Client) Unary() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		var call policy.Call
		if err := c.begin(ctx, &call, method); err != nil {
			return err
		}
		limit, name := unaryLimit(call.Method().Policy())
		limited := ctx
		if limit > 0 {
			var cancel context.CancelFunc
			limited, cancel = context.WithTimeoutCause(ctx, limit, errTimeout)
			defer cancel()
		}
		err := invoke(limited, method, request, reply, cc, options...)
		result, err := c.judge(ctx, limited, &call, err, name, limit)
		call.End(c.now(), result, rand.Uint64())
		return err
	}
}

// unaryLimit is how long a unary call may take. There is one try, so both
// timeouts bound it.
func unaryLimit(p *policy.Policy) (limit time.Duration, name string) {
	if p.PerTryTimeout > 0 && (p.Timeout == 0 || p.PerTryTimeout < p.Timeout) {
		return p.PerTryTimeout, "per_try_timeout"
	}
	return p.Timeout, "timeout"
}

// judge says whose fault an error is, and replaces one that a policy caused by
// its explanation.
func (c *Client) judge(caller, limited context.Context, call *policy.Call, err error, limitName string, limit time.Duration) (policy.Result, error) {
	code := status.Code(err)
	switch {
	case code == codes.DeadlineExceeded && byPolicy(caller, limited, limit):
		refusal := call.Refuse(policy.Timeout, "", "no answer from "+c.service.Name()+" within the "+limitName+" of "+limit.String())
		refusal.Policy = limitName
		return policy.Refused(refusal), Error(refusal)
	case code == codes.DeadlineExceeded && errors.Is(caller.Err(), context.DeadlineExceeded):
		return policy.Result{Code: policy.DeadlineExceeded, Reason: policy.Deadline}, err
	case code == codes.Canceled && errors.Is(caller.Err(), context.Canceled):
		return policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, err
	}
	return policy.Result{Code: policy.Code(code)}, err
}

// Error returns a refusal as a gRPC status error with its details.
func Error(r *policy.Refusal) error {
	s := &spb.Status{}
	if err := proto.Unmarshal(r.AppendDetails(nil), s); err != nil {
		// AppendDetails writes that very message: never, but the code stands.
		return status.Error(codes.Code(r.Code()), r.Message)
	}
	return status.FromProto(s).Err()
}

// grpcError turns a context's error into a status, as grpc-go does.
func grpcError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return err
}
