package agent

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks"
)

// serviceKey routes a call by the name of its service.
const serviceKey = "outrigger-service"

// maxReply bounds a reply that is looked at, whatever of it is kept.
const maxReply = 64 << 20

// calls makes the calls of grpc tasks through the agent's own egress. It implements
// tasks.Calls.
type calls struct {
	conn *grpc.ClientConn
	// known reports whether a service is configured.
	known func(service string) bool
}

func (a *Agent) newCalls() (*calls, error) {
	conn, err := grpc.NewClient("passthrough:///outrigger",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return a.loop(ctx) }),
		grpc.WithNoProxy(), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), // policies are the egress's
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(verbatim{}), grpc.MaxCallRecvMsgSize(maxReply), grpc.MaxCallSendMsgSize(maxReply)),
	)
	if err != nil {
		return nil, err
	}
	return &calls{conn: conn, known: func(service string) bool { return a.reload.config().Service(service) != nil }}, nil
}

// Call implements tasks.Calls.
func (c *calls) Call(ctx context.Context, call tasks.Call) ([]byte, error) {
	md := call.Metadata.Copy()
	if md == nil {
		md = metadata.MD{}
	}
	var options []grpc.CallOption
	if c.known(call.Service) {
		md.Set(serviceKey, call.Service)
	} else {
		options = append(options, grpc.CallAuthority(call.Service))
	}
	got := reply{limit: call.MaxReply}
	if err := c.conn.Invoke(metadata.NewOutgoingContext(ctx, md), call.Method, call.Message, &got, options...); err != nil {
		return nil, err
	}
	if got.size > got.limit {
		return nil, fmt.Errorf("%w: it has %d bytes, and %d are kept at most", tasks.ErrReplyTooLarge, got.size, got.limit)
	}
	return got.message, nil
}

// reply is a response message as it came.
type reply struct {
	limit, size int
	message     []byte // nil past the limit
}

// verbatim is a codec of messages that are bytes. It implements encoding.CodecV2.
type verbatim struct{}

var _ encoding.CodecV2 = verbatim{}

// Name is that of the content type: what the bytes are, the caller knows.
func (verbatim) Name() string { return "proto" }

// Marshal takes []byte.
func (verbatim) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.([]byte)
	if !ok {
		return nil, status.Errorf(codes.Internal, "a %T is no message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(message)}, nil
}

// Unmarshal fills a *reply.
func (verbatim) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*reply)
	if !ok {
		return status.Errorf(codes.Internal, "a %T is no reply", v)
	}
	if r.size = data.Len(); r.size <= r.limit {
		r.message = data.Materialize()
	}
	return nil
}
