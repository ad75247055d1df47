// Package task has work done later by the agent's task executor, and does work
// that it hands out.
//
//	client, err := task.Dial("127.0.0.1:7601")
//	…
//	submitted, err := client.Submit(ctx, task.App("save-user", user), task.Options{Key: "signup-7"})
//	ended, err := client.Wait(ctx, submitted.GetId())
//
// A worker does tasks of its kinds until its context ends:
//
//	worker := task.Worker{Kinds: map[string]task.Handler{
//		"save-user": task.JSON(func(ctx context.Context, u User) (User, error) { return save(ctx, u) }),
//	}}
//	err = worker.Run(ctx, client)
//
// A task is done at least once: a worker that dies in mid-work, or that the agent
// lost sight of, has it done again by another. Its id stays the same, so that
// work with effects outside can tell a repetition. It is the same code for one
// agent with a file and for many on a database.
package task

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// jsonType is the content type of payloads that JSON reads and writes.
const jsonType = "application/json"

// Client submits tasks and follows them. Make it with Dial or New. Safe for
// concurrent use.
type Client struct {
	api outriggerv1.TaskServiceClient
	own *grpc.ClientConn // nil: the connection is the caller's
}

// Dial returns a client of the agent at an address, host:port or unix:PATH, in
// plaintext: the agent's API listens on loopback by default. It doesn't wait for
// the agent, and tries again every two seconds at the latest where it is away. For TLS
// make a connection of your own, and use New.
func Dial(address string) (*Client, error) {
	target := "passthrough:///" + address
	if strings.HasPrefix(address, "unix:") {
		target = address
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithConnectParams(connecting))
	if err != nil {
		return nil, err
	}
	c := New(conn)
	c.own = conn
	return c, nil
}

// connecting is how Dial's connection comes back: by itself it would let an agent
// that was away for minutes wait as long again.
var connecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 5 * time.Second,
}

// New returns a client over a connection to the agent's API, which stays the
// caller's to close. grpc's own backoff tries an agent that is away every two minutes
// in the end: make it shorter (grpc.WithConnectParams).
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{api: outriggerv1.NewTaskServiceClient(conn)}
}

// API returns the generated client, for all that has no shorter way here.
func (c *Client) API() outriggerv1.TaskServiceClient { return c.api }

// Close closes a connection that Dial made.
func (c *Client) Close() error {
	if c.own == nil {
		return nil
	}
	return c.own.Close()
}

// Options of a task that its work does not say. The zero value: as soon as
// possible, by the kind's settings.
type Options struct {
	// Key makes the submit idempotent: the same key and content is the same task.
	Key string
	// Queue it waits in. Empty: the default one.
	Queue string
	// Priority, 1 (first) to 4 (last). Zero: 2.
	Priority int
	// Delay before it runs. RunAt is a time instead.
	Delay time.Duration
	RunAt time.Time
	// Deadline is when it is given up. Zero: never.
	Deadline time.Time
	// MaxAttempts. Zero: the kind's.
	MaxAttempts int
	// Timeout of one attempt. Zero: the kind's.
	Timeout time.Duration
	// Tenant whose tasks don't hold up another's.
	Tenant string
	// Tags to list it by.
	Tags []string
}

// check refuses what no message could say.
func (o Options) check() error {
	switch {
	case o.Priority < 0 || o.Priority > 4:
		return fmt.Errorf("the task's Priority is %d; want 1 (first) to 4 (last), or 0 for the default", o.Priority)
	case o.MaxAttempts < 0 || o.MaxAttempts > 1000:
		return fmt.Errorf("the task's MaxAttempts is %d; want 1 to 1000, or 0 for the kind's", o.MaxAttempts)
	case o.Delay < 0:
		return fmt.Errorf("the task's Delay is %v; want no less than 0", o.Delay)
	case o.Timeout < 0:
		return fmt.Errorf("the task's Timeout is %v; want more than 0, or 0 for the kind's", o.Timeout)
	}
	return nil
}

// spec puts the work and the options together.
func (o Options) spec(work *outriggerv1.TaskSpec) *outriggerv1.TaskSpec {
	s := work
	if o.Queue != "" {
		s.Queue = o.Queue
	}
	if o.Priority != 0 {
		s.Priority = uint32(o.Priority)
	}
	if o.Delay != 0 {
		s.Delay = durationpb.New(o.Delay)
	}
	if !o.RunAt.IsZero() {
		s.RunAt = timestamppb.New(o.RunAt)
	}
	if !o.Deadline.IsZero() {
		s.Deadline = timestamppb.New(o.Deadline)
	}
	if o.MaxAttempts > 0 {
		s.Retry = &outriggerv1.TaskRetry{MaxAttempts: uint32(o.MaxAttempts), Base: s.GetRetry().GetBase(), Max: s.GetRetry().GetMax()}
	}
	if o.Timeout > 0 {
		s.Timeout = durationpb.New(o.Timeout)
	}
	if o.Tenant != "" {
		s.Tenant = o.Tenant
	}
	s.Tags = append(s.Tags, o.Tags...)
	return s
}

// App is work of a kind that workers do: what they get is v as JSON, or as it is
// where v is []byte or a *Payload of the generated code. A v that JSON can't write
// is told by Submit.
func App(kind string, v any) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: kind, Payload: payloadOf(v)}}}
}

// GRPC is a unary call through the agent's policies, of a message that was
// serialized.
func GRPC(service, method string, message []byte) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Grpc{Grpc: &outriggerv1.GrpcWork{Service: service, Method: method, Message: message}}}
}

// HTTP is an HTTP request through the agent's policies.
func HTTP(work *outriggerv1.HttpWork) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Http{Http: work}}
}

// Email is an e-mail.
func Email(work *outriggerv1.EmailWork) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Email{Email: work}}
}

// Chain is steps, one after another unless they say otherwise; input is what their
// expressions see as input, as in App.
func Chain(input any, steps ...*outriggerv1.ChainStep) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Chain{Chain: &outriggerv1.ChainWork{Steps: steps, Input: payloadOf(input)}}}
}

// Step is one step of a chain; fields of its work are filled by CEL expressions,
// such as {"app.payload": "input"} or {"email.to": "[steps.save.output.email]"}.
func Step(name string, work *outriggerv1.TaskSpec, fields map[string]string) *outriggerv1.ChainStep {
	return &outriggerv1.ChainStep{Name: name, Task: work, Map: fields}
}

// unwritable is the content type of a payload that JSON could not write; its data
// says why.
const unwritable = "outrigger/unwritable"

func payloadOf(v any) *outriggerv1.Payload {
	switch v := v.(type) {
	case nil:
		return nil
	case []byte:
		return &outriggerv1.Payload{Data: v}
	case *outriggerv1.Payload:
		return v
	}
	data, err := json.Marshal(v)
	if err != nil {
		return &outriggerv1.Payload{Data: []byte(fmt.Sprintf("%T: %v", v, err)), ContentType: unwritable}
	}
	return &outriggerv1.Payload{Data: data, ContentType: jsonType}
}
