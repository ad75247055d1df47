// Package interceptors puts Outrigger's policies into a Go program without a
// sidecar: grpc-go client interceptors and a balancer over a policy.Service,
// and an http.RoundTripper.
//
//	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
//	service.SetEndpoints([]balancer.Spec{{Address: "127.0.0.1:50051"}, {Address: "127.0.0.1:50052"}})
//	client, err := interceptors.New(interceptors.Options{Service: service})
//	cc, err := grpc.NewClient("outrigger:///greeter", append(client.DialOptions(), …)...)
//
// The target says where the endpoints come from: "outrigger:///NAME" takes those
// of the Service, which may change at any time; any other target takes what
// its resolver finds, and sets the Service's endpoints to it.
//
// What a policy refuses or ends is the same gRPC status that the agent answers,
// with ErrorInfo and RetryInfo. A method that is unary is known to be: a timeout
// of the policy ends an attempt by cancelling it. The server is told of the
// caller's own deadline only, as behind the agent.
//
// grpc-go sends a stream again by itself where the endpoint provably did nothing
// with it (a transparent retry of gRFC A6); nothing else sends a stream twice.
package interceptors

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Options make a Client.
type Options struct {
	// Service holds the policies and the live state; it must not be nil. One
	// may serve several Clients that share an Origin.
	Service *policy.Service
	// Origin is what the Service's instants count from. Zero: the start of the
	// process; set it when something else drives the Service too. It must lie
	// in the past.
	Origin time.Time
}

// processOrigin is the origin where none is given: in the past, so that no
// instant is zero.
var processOrigin = time.Now().Add(-time.Second)

// Client makes interceptors. Safe for concurrent use. It holds nothing that
// has to be closed.
type Client struct {
	service *policy.Service
	origin  time.Time
	// name is what the balancer's configuration calls the Client by.
	name string

	mu      sync.Mutex
	source  string         // the target that the Service's endpoints come from; empty: the Service itself
	sources int            // balancers that take them from there
	targets map[string]int // balancers by target
}

// clients counts the Clients made, so that each has a name of its own.
var clients atomic.Uint64

// New returns a Client, or an error that says what is wrong with the options.
func New(o Options) (*Client, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Origin.IsZero() {
		o.Origin = processOrigin
	}
	c := &Client{service: o.Service, origin: o.Origin, targets: make(map[string]int),
		name: o.Service.Name() + "/" + strconv.FormatUint(clients.Add(1), 10)}
	register(c)
	return c, nil
}

func (o *Options) check() error {
	if o.Service == nil {
		return errors.New("interceptors: Options.Service is nil; make one with policy.NewService")
	}
	if !o.Origin.IsZero() && time.Since(o.Origin) <= 0 {
		return fmt.Errorf("interceptors: Options.Origin is %v, which is not in the past; instants would not be greater than zero", o.Origin)
	}
	return nil
}

// DialOptions returns what makes a ClientConn follow the policies: both
// interceptors; the balancer; the resolver of "outrigger:///NAME". Targets with
// a resolver of their own keep it.
//
// The service configuration that a resolver finds is not used
// (grpc.WithDisableServiceConfig): its timeouts, retries and balancer would
// compete with the policies. grpc-go's own retries are off for the same reason
// (grpc.WithDisableRetry): two retry loops multiply, and each has a budget that
// the other does not know. Its transparent retries stay on. A
// grpc.WithDefaultServiceConfig after these options takes the balancer away:
// calls then fail and say so.
func (c *Client) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(c.unaries(true)),
		grpc.WithChainStreamInterceptor(c.streams(true)),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultServiceConfig(c.serviceConfig()),
		grpc.WithResolvers(resolverBuilder{c}),
	}
}

// Unary returns the interceptor of unary calls alone, for a ClientConn with
// another balancer. The ClientConn chooses the endpoint: nothing keeps a retry
// from going to the one that failed, and calls under a circuit breaker of scope
// ENDPOINT are answered FAILED_PRECONDITION. Such a ClientConn wants
// grpc.WithDisableRetry.
func (c *Client) Unary() grpc.UnaryClientInterceptor { return c.unaries(false) }

// Stream returns the interceptor of streams alone, as Unary does.
func (c *Client) Stream() grpc.StreamClientInterceptor { return c.streams(false) }

func (c *Client) now() policy.Instant { return time.Since(c.origin) }

// allowance is how much time the context leaves, as policy.Arrival wants it.
func allowance(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return max(time.Until(deadline), 0)
	}
	return policy.NoTimeout
}
