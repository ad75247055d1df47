package api

import (
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"

	"buf.build/go/protovalidate"
	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	validation "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/protovalidate"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// interceptors wrap every request, outermost first: log how it ended, turn a
// panic into INTERNAL, end streams with the server, check the request's rules.
func (s *Server) interceptors() []grpc.ServerOption {
	logger := logging.LoggerFunc(func(ctx context.Context, level logging.Level, message string, fields ...any) {
		s.log.Log(ctx, slog.Level(level), "api: "+message, fields...)
	})
	logged := []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithLevels(logLevel),
		logging.WithDisableLoggingFields(logging.SystemTag[0], logging.ComponentFieldKey, logging.MethodTypeFieldKey),
	}
	recovered := recovery.WithRecoveryHandlerContext(s.recovered)
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(
			logging.UnaryServerInterceptor(logger, logged...),
			recovery.UnaryServerInterceptor(recovered),
			s.sizedUnary,
			validation.UnaryServerInterceptor(rules{}),
		),
		grpc.ChainStreamInterceptor(
			logging.StreamServerInterceptor(logger, logged...),
			recovery.StreamServerInterceptor(recovered),
			s.endStreams,
			s.sizedStream,
			unlessJudged(validation.StreamServerInterceptor(rules{})),
		),
	}
}

// unlessJudged keeps an interceptor away from Guard and StreamTasks, which check
// what comes one by one: a mistake in one must not end the stream of all.
func unlessJudged(intercept grpc.StreamServerInterceptor) grpc.StreamServerInterceptor {
	return func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		switch info.FullMethod {
		case outriggerv1.ResilienceService_Guard_FullMethodName, outriggerv1.TaskService_StreamTasks_FullMethodName:
			return handler(service, stream)
		}
		return intercept(service, stream, info, handler)
	}
}

// forTasks reports whether a method takes tasks, which may be large.
func forTasks(method string) bool {
	return strings.HasPrefix(method, "/"+outriggerv1.TaskService_ServiceDesc.ServiceName+"/")
}

// sized refuses a request that is larger than any of its kind needs to be.
func sized(method string, m any) error {
	if r, ok := m.(proto.Message); ok && !forTasks(method) && proto.Size(r) > maxRequest {
		return status.Errorf(codes.ResourceExhausted, "the request has %d bytes, and may have %d", proto.Size(r), maxRequest)
	}
	return nil
}

func (s *Server) sizedUnary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if s.tasks != nil {
		if err := sized(info.FullMethod, r); err != nil {
			return nil, err
		}
	}
	return handler(ctx, r)
}

func (s *Server) sizedStream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if s.tasks != nil && !forTasks(info.FullMethod) {
		stream = &sizedReader{stream, info.FullMethod}
	}
	return handler(service, stream)
}

// sizedReader is a stream whose requests are bounded.
type sizedReader struct {
	grpc.ServerStream
	method string
}

// RecvMsg implements grpc.ServerStream.
func (b *sizedReader) RecvMsg(m any) error {
	if err := b.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return sized(b.method, m)
}

// logLevel sorts outcomes by whom they concern: what a caller got wrong is of
// interest to the caller, who is told.
func logLevel(code codes.Code) logging.Level {
	switch code {
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return logging.LevelError
	case codes.ResourceExhausted:
		return logging.LevelWarn
	}
	return logging.LevelDebug
}

func (s *Server) recovered(ctx context.Context, p any) error {
	s.log.ErrorContext(ctx, "api: a request panicked; please report it", "panic", p, "stack", string(debug.Stack()))
	return status.Error(codes.Internal, "the agent made a mistake with this request; its log has the details")
}

// errEnding is what watch streams end with.
var errEnding = status.Error(codes.Unavailable, "the agent is ending")

// endStreams ends every stream that waits when the server does.
func (s *Server) endStreams(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	wrapped := middleware.WrapServerStream(stream)
	wrapped.WrappedContext = ctx
	err := handler(service, wrapped)
	if err != nil && s.ending.Err() != nil && stream.Context().Err() == nil {
		return errEnding
	}
	return err
}

// validator is built at the first request: an agent that nobody asks does not
// pay for it.
var validator = sync.OnceValues(func() (protovalidate.Validator, error) { return protovalidate.New() })

// rules are those of the proto files.
type rules struct{}

// Validate implements protovalidate.Validator.
func (rules) Validate(m proto.Message, options ...protovalidate.ValidationOption) error {
	v, err := validator()
	if err != nil {
		return err
	}
	return v.Validate(m, options...)
}

// peerAddress returns who sent the request, for the log.
func peerAddress(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	switch {
	case !ok || p.Addr == nil:
		return "unknown"
	case p.Addr.Network() == "unix":
		return "unix" // the client's end of a unix socket has no name
	}
	return p.Addr.String()
}
