package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// The breaker is open from 5 s to 15 s of every 20 s, so that a reload every
// 30 s finds it open and closed in turn.
const (
	step       = 5 * time.Second
	opensAt    = 1 // steps of a round
	closesAt   = 3
	round      = 4
	reloadStep = 6
)

// disturbance is what happens around the stream, and how often it did.
type disturbance struct {
	agent          *sidecar.Agent
	upstream       string
	calls, control *grpc.ClientConn

	reloads, opened, closed int
	refused                 int // unary calls while it was open
	let                     int // unary calls while it was closed
}

// until disturbs until over is closed, and ends what it began before that.
func (d *disturbance) until(ctx context.Context, over <-chan struct{}) error {
	tick := time.NewTicker(step)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-over:
			return nil
		case <-tick.C:
		}
		var err error
		switch n % round {
		case opensAt:
			err = d.open(ctx)
		case closesAt:
			err = d.close(ctx)
		}
		if err == nil && n%reloadStep == 0 {
			err = d.reload(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// open opens the breaker and sees that a unary call is refused.
func (d *disturbance) open(ctx context.Context) error {
	if _, err := outriggerv1.NewBreakerServiceClient(d.control).OpenBreaker(ctx, &outriggerv1.OpenBreakerRequest{Name: "stream"}); err != nil {
		return fmt.Errorf("opening the breaker: %w", err)
	}
	d.opened++
	if err := d.unary(ctx); reasonOf(err) == "BREAKER_OPEN" {
		d.refused++
	}
	return nil
}

// close closes the breaker and sees that a unary call is answered.
func (d *disturbance) close(ctx context.Context) error {
	if _, err := outriggerv1.NewBreakerServiceClient(d.control).CloseBreaker(ctx, &outriggerv1.CloseBreakerRequest{Name: "stream"}); err != nil {
		return fmt.Errorf("closing the breaker: %w", err)
	}
	d.closed++
	if d.unary(ctx) == nil {
		d.let++
	}
	return nil
}

func (d *disturbance) reload(ctx context.Context) error {
	if err := d.agent.Configure(configuration(d.upstream, d.reloads+1)); err != nil {
		return err
	}
	if _, err := outriggerv1.NewAgentServiceClient(d.control).Reload(ctx, &outriggerv1.ReloadRequest{}); err != nil {
		return fmt.Errorf("reloading: %w", err)
	}
	d.reloads++
	return nil
}

func (d *disturbance) unary(ctx context.Context) error {
	return d.calls.Invoke(ctx, "/stream.Test/Unary", wrapperspb.Bytes([]byte("x")), new(wrapperspb.BytesValue))
}

// incomplete says what should have happened and did not.
func (d *disturbance) incomplete() error {
	if d.reloads == 0 || d.opened == 0 || d.closed == 0 || d.refused != d.opened || d.let != d.closed {
		return errors.New("the stream was not disturbed as it should have been")
	}
	return nil
}

// reasonOf returns the ErrorInfo reason of an error.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}
