package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	stalledMessages = 1024 // of 1 MiB
	stalledGoal     = 2048 // KiB

	streamConnections = 10
	streamsEach       = 1000
	streamGoal        = 4 // KiB each
)

// stalledStream opens a long stream, reads nothing of it and makes other calls
// on the same connection.
func stalledStream(agent *sidecar.Agent) error {
	cc, err := dial(agent.Egress)
	if err != nil {
		return err
	}
	defer func() { _ = cc.Close() }()
	if _, err := p99(cc); err != nil { // warms up
		return err
	}
	quiet, err := p99(cc)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	before, err := agent.Resident()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stalled, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/memory.Test/Down")
	if err != nil {
		return err
	}
	if err := errors.Join(stalled.SendMsg(wrapperspb.Bytes(nil)), stalled.CloseSend()); err != nil {
		return err
	}
	more, err := grown(agent, before)
	if err != nil {
		return err
	}
	beside, err := p99(cc)
	if err != nil {
		return err
	}
	return judge(more <= stalledGoal, stalledGoal, "a 1 GiB stream whose reader stops: p99 of other calls %v before, %v beside it; %+.0f KiB", quiet, beside, more)
}

// idleStreams opens streams that do nothing.
func idleStreams(agent *sidecar.Agent) error {
	warm, err := dial(agent.Egress)
	if err != nil {
		return err
	}
	defer func() { _ = warm.Close() }()
	if _, err := p99(warm); err != nil {
		return err
	}
	// Right after its start the agent still gives memory back.
	time.Sleep(settle)
	before, err := agent.Resident()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range streamConnections {
		cc, err := dial(agent.Egress)
		if err != nil {
			return err
		}
		defer func() { _ = cc.Close() }()
		for range streamsEach {
			s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/memory.Test/Wait")
			if err != nil {
				return err
			}
			if err := errors.Join(s.SendMsg(wrapperspb.Bytes(nil)), s.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
				return err
			}
		}
	}
	more, err := grown(agent, before)
	if err != nil {
		return err
	}
	each := more / (streamConnections * streamsEach)
	return judge(each <= streamGoal, streamGoal, "%d idle streams: %.2f KiB each", streamConnections*streamsEach, each)
}

func dial(egress string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+egress, grpc.WithAuthority("memory"), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// p99 makes calls one after another.
func p99(cc *grpc.ClientConn) (time.Duration, error) {
	const calls = 2000
	took := make([]time.Duration, calls)
	for i := range took {
		start := time.Now()
		if err := cc.Invoke(context.Background(), "/memory.Test/Unary", wrapperspb.Bytes(make([]byte, 100)), new(wrapperspb.BytesValue)); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[calls*99/100], nil
}
