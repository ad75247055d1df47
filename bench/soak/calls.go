package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// link is what a call can be made on: one connection, under the names of the
// service that answers and of the one where nobody does.
type link struct {
	soak, nobody, unknown *grpc.ClientConn
}

// kind is a kind of call. make returns an error if the call ended otherwise
// than it should.
type kind struct {
	name  string
	share int // of 100 calls
	make  func(context.Context, link) error
}

// kinds add up to 100.
var kinds = []kind{
	{"unary", 70, unaryCall},
	{"server streams", 6, downCall},
	{"client streams", 3, upCall},
	{"two-way streams", 5, echoCall},
	{"cancelled", 6, cancelledCall},
	{"out of time", 4, lateCall},
	{"without a server", 3, nobodyCall},
	{"without a route", 2, unknownCall},
	{"of 1 MiB", 1, bigCall},
}

var (
	small = bytes.Repeat([]byte("x"), 100)
	big   = bytes.Repeat([]byte("x"), 1<<20)

	twoWay = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	toUs   = &grpc.StreamDesc{ServerStreams: true}
	toThem = &grpc.StreamDesc{ClientStreams: true}
)

// deadline is short, yet long enough for the first message.
const deadline = 100 * time.Millisecond

func unaryCall(ctx context.Context, l link) error { return exchange(ctx, l.soak, small) }
func bigCall(ctx context.Context, l link) error   { return exchange(ctx, l.soak, big) }

func exchange(ctx context.Context, cc *grpc.ClientConn, message []byte) error {
	out := new(wrapperspb.BytesValue)
	if err := cc.Invoke(ctx, "/soak.Test/Unary", wrapperspb.Bytes(message), out); err != nil {
		return err
	}
	if !bytes.Equal(out.GetValue(), message) {
		return fmt.Errorf("sent %d bytes, got %d others", len(message), len(out.GetValue()))
	}
	return nil
}

func downCall(ctx context.Context, l link) error {
	s, err := l.soak.NewStream(ctx, toUs, "/soak.Test/Down")
	if err != nil {
		return err
	}
	if err := errors.Join(s.SendMsg(wrapperspb.Bytes(small)), s.CloseSend()); err != nil {
		return err
	}
	for n := 0; ; n++ {
		err := s.RecvMsg(new(wrapperspb.BytesValue))
		if errors.Is(err, io.EOF) && n == downMessages {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d of %d messages: %w", n, downMessages, err)
		}
	}
}

func upCall(ctx context.Context, l link) error {
	s, err := l.soak.NewStream(ctx, toThem, "/soak.Test/Up")
	if err != nil {
		return err
	}
	const messages = 20
	for range messages {
		if err := s.SendMsg(wrapperspb.Bytes(small)); err != nil {
			return err
		}
	}
	counted := new(wrapperspb.Int64Value)
	if err := errors.Join(s.CloseSend(), s.RecvMsg(counted)); err != nil {
		return err
	}
	if want := int64(messages * len(small)); counted.GetValue() != want {
		return fmt.Errorf("sent %d bytes, %d arrived", want, counted.GetValue())
	}
	return nil
}

func echoCall(ctx context.Context, l link) error {
	s, err := l.soak.NewStream(ctx, twoWay, "/soak.Test/Echo")
	if err != nil {
		return err
	}
	for range 5 {
		if err := errors.Join(s.SendMsg(wrapperspb.Bytes(small)), s.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
			return err
		}
	}
	if err := s.CloseSend(); err != nil {
		return err
	}
	if err := s.RecvMsg(new(wrapperspb.BytesValue)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("after the last message: %v", err) //nolint:errorlint // nil is wrong here as well
	}
	return nil
}

// cancelledCall is given up by its caller in the middle.
func cancelledCall(ctx context.Context, l link) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return left(ctx, l, cancel, codes.Canceled)
}

// lateCall runs into its caller's deadline.
func lateCall(ctx context.Context, l link) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	return left(ctx, l, func() {}, codes.DeadlineExceeded)
}

// left opens a stream that only its caller ends, and expects a code.
func left(ctx context.Context, l link, end func(), want codes.Code) error {
	s, err := l.soak.NewStream(ctx, twoWay, "/soak.Test/Wait")
	if err != nil {
		return expect(err, want)
	}
	if err := s.SendMsg(wrapperspb.Bytes(small)); err != nil && !errors.Is(err, io.EOF) {
		return expect(err, want)
	}
	if err := s.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		return expect(err, want)
	}
	end()
	return expect(s.RecvMsg(new(wrapperspb.BytesValue)), want)
}

func nobodyCall(ctx context.Context, l link) error {
	return expect(exchange(ctx, l.nobody, small), codes.Unavailable)
}

func unknownCall(ctx context.Context, l link) error {
	return expect(exchange(ctx, l.unknown, small), codes.Unimplemented)
}

func expect(err error, want codes.Code) error {
	if got := status.Code(err); got != want {
		return fmt.Errorf("got %v (%v), want %v", got, err, want) //nolint:errorlint // nil is wrong here as well
	}
	return nil
}
