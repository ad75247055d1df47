// Package guard guards anything by the agent's policies: a pool of database
// connections, a payment API, a file share. It asks the agent for permits and
// reports how the work under them ended; all permits of a Client share one
// stream, and operations of many goroutines go in one message.
//
//	client, err := guard.Dial("127.0.0.1:7601")
//	…
//	err = client.Do(ctx, guard.Request{Service: "database"}, func(ctx context.Context, p *guard.Permit) error {
//		return work(ctx, p.Endpoint) // again under another permit, where the policy says so
//	})
//
// Or by hand:
//
//	permit, err := client.Acquire(ctx, guard.Request{Service: "database"})
//	…
//	permit.Done(work(ctx))
//
// What the agent refuses is an *Error with the agent's reason, such as
// "CONCURRENCY_LIMIT", and a gRPC status.
package guard

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Client asks for permits. Make it with Dial or New, and close it. Safe for
// concurrent use.
type Client struct {
	api outriggerv1.ResilienceServiceClient
	own *grpc.ClientConn // nil: the connection is the caller's

	mu      sync.Mutex
	current *stream
	closed  bool
	streams sync.WaitGroup
}

// Dial returns a client of the agent at an address, host:port or unix:PATH, in
// plaintext: the agent's API listens on loopback by default. It doesn't wait
// for the agent. For TLS make a connection of your own, and use New.
func Dial(address string) (*Client, error) {
	target := "passthrough:///" + address
	if strings.HasPrefix(address, "unix:") {
		target = address
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return nil, err
	}
	c := New(conn)
	c.own = conn
	return c, nil
}

// New returns a client over a connection to the agent's API, which stays the
// caller's to close.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{api: outriggerv1.NewResilienceServiceClient(conn)}
}

// Close sends the reports that are on their way, ends the stream, and with it
// every permit that is out, and waits for the client's goroutines. An agent that
// doesn't answer is not waited for longer than a second.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	s := c.current
	c.mu.Unlock()
	if s != nil {
		s.finish()
	}
	c.streams.Wait()
	if c.own != nil {
		c.own.Close()
	}
}

// errClosed is what operations of a closed client fail with.
var errClosed = &Error{Code: codes.Canceled, Message: "the guard client is closed"}

// stream returns the stream that is open, or opens one.
func (c *Client) stream() (*stream, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errClosed
	}
	if c.current == nil || !c.current.alive() {
		c.current = newStream(c.api)
		c.streams.Add(1)
		go func(s *stream) {
			defer c.streams.Done()
			s.run()
		}(c.current)
	}
	return c.current, nil
}

// Acquire asks for a permit and waits for it, as long as ctx and the policy
// allow. A deadline of ctx bounds the call like Request.Timeout. Each permit
// wants one Done or Report.
func (c *Client) Acquire(ctx context.Context, r Request) (*Permit, error) {
	if err := ctx.Err(); err != nil {
		return nil, fromContext(err)
	}
	s, err := c.stream()
	if err != nil {
		return nil, err
	}
	op := newOperation(acquire)
	r.fill(ctx, &op.request)
	return s.ask(ctx, op, &r)
}
