package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// postgresConnections is the pool of each contender.
const postgresConnections = 10

// content is what a task is about: 100 bytes.
var content = strings.Repeat("x", 100)

const (
	method = "/bench.Empty/Do"
	// appKind is worked by a worker of package task in this process.
	appKind = "empty"
)

// agent is the agent's process over a store of its own, with a client of its API.
type agent struct {
	*sidecar.Agent
	clients []*task.Client // one connection each
	began   chan began     // calls that reached the empty server
}

// began is a call of a task.
type began struct {
	id string
	at time.Time
}

// newAgent starts an agent with an empty server behind it.
func (b *bench) newAgent(capacity int) (*agent, error) {
	b.made++
	a := &agent{began: make(chan began, 4**count)}
	address, err := b.serve(a.began)
	if err != nil {
		return nil, err
	}
	store := fmt.Sprintf("{sqlite: {path: %q}}", filepath.Join(b.dir, fmt.Sprintf("agent-%d-%d.db", time.Now().UnixNano(), b.made)))
	if b.server != nil {
		name := fmt.Sprintf("agent%d_%d", time.Now().UnixNano(), b.made)
		if err := b.server.Create(name); err != nil {
			return nil, err
		}
		store = fmt.Sprintf("{postgres: {url: %q, max_connections: %d}}", b.server.URLOf(name), postgresConnections)
	}
	a.Agent, err = sidecar.Start(*binary, fmt.Sprintf(`
egress: {address: "127.0.0.1:0"}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
services:
  - name: empty
    endpoints: {static: [{address: %q}]}
tasks:
  store: %s
  queue_capacity: %d
  workers: %d
  kinds: [{name: %s}]
`, address, store, capacity, bareWorkers, appKind))
	if err != nil {
		return nil, err
	}
	b.open.add(func() error { a.Stop(); return nil })
	for range 4 {
		client, err := task.Dial(a.API)
		if err != nil {
			return nil, err
		}
		b.open.add(client.Close)
		a.clients = append(a.clients, client)
	}
	return a, nil
}

// serve is a gRPC server that does nothing, and tells of calls as long as somebody
// listens.
func (b *bench) serve(tell chan began) (address string, err error) {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "bench.Empty", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Do",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			at := time.Now()
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			md, _ := metadata.FromIncomingContext(ctx)
			select {
			case tell <- began{strings.Join(md.Get("outrigger-task-id"), ","), at}:
			default:
			}
			return in, nil
		}}}}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = server.Serve(l) }() // it ends with Stop
	b.open.add(func() error { server.Stop(); return nil })
	return l.Addr().String(), nil
}

// emptyCall is a grpc task to the empty server.
func emptyCall() *outriggerv1.TaskSpec {
	message, _ := proto.Marshal(wrapperspb.String(content)) // a string always can
	return task.GRPC("empty", method, message)
}

func emptyApp() *outriggerv1.TaskSpec { return task.App(appKind, []byte(content)) }

// pause stops tasks from being started, or lets them be again.
func (a *agent) pause(ctx context.Context, queue string, on bool) error {
	if on {
		_, err := a.clients[0].API().PauseQueue(ctx, &outriggerv1.PauseQueueRequest{Name: queue})
		return err
	}
	_, err := a.clients[0].API().ResumeQueue(ctx, &outriggerv1.ResumeQueueRequest{Name: queue})
	return err
}

// submitMany has n equal tasks accepted in one call.
func (a *agent) submitMany(ctx context.Context, client, n int, spec *outriggerv1.TaskSpec) error {
	request := &outriggerv1.SubmitTasksRequest{}
	for range n {
		request.Tasks = append(request.Tasks, &outriggerv1.SubmitTaskRequest{Task: spec})
	}
	_, err := a.clients[client%len(a.clients)].API().SubmitTasks(ctx, request)
	return err
}

// open reports whether tasks have not ended.
func (a *agent) unfinished(ctx context.Context) (bool, error) {
	page, err := a.clients[0].API().ListTasks(ctx, &outriggerv1.ListTasksRequest{PageSize: 1, States: []outriggerv1.TaskState{
		outriggerv1.TaskState_SCHEDULED, outriggerv1.TaskState_AVAILABLE, outriggerv1.TaskState_RUNNING, outriggerv1.TaskState_RETRYABLE}})
	return len(page.GetTasks()) > 0, err
}
