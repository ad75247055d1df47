package api

import (
	"context"
	"net"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// resilienceService implements outrigger.v1.ResilienceService.
type resilienceService struct {
	outriggerv1.UnimplementedResilienceServiceServer
	server *Server
}

// Acquire asks for a permit.
func (s *resilienceService) Acquire(ctx context.Context, q *outriggerv1.AcquireRequest) (*outriggerv1.AcquireResponse, error) {
	v, err := s.ask(ctx, func(h *holder, r *round, reply chan answer) *permit {
		return h.acquire(r, q, 0, reply, peerHost(ctx))
	})
	if err != nil {
		return nil, err
	}
	return &outriggerv1.AcquireResponse{Permit: v}, nil
}

// Report takes how the work under a permit ended.
func (s *resilienceService) Report(ctx context.Context, q *outriggerv1.ReportRequest) (*outriggerv1.ReportResponse, error) {
	v, err := s.ask(ctx, func(h *holder, r *round, reply chan answer) *permit {
		return h.report(r, q, 0, reply, peerHost(ctx))
	})
	if err != nil {
		return nil, err
	}
	return &outriggerv1.ReportResponse{Permit: v}, nil
}

// ask does one operation and waits for its answer. do returns the permit that
// the answer is about, or nil where there is none.
func (s *resilienceService) ask(ctx context.Context, do func(*holder, *round, chan answer) *permit) (*outriggerv1.Permit, error) {
	t := s.server.permits
	h := t.callers
	r := round{now: t.now()}
	reply := make(chan answer, 1)
	h.mu.Lock()
	p := do(h, &r, reply)
	h.mu.Unlock()
	t.wake(&r)
	select {
	case a := <-reply:
		return result(a)
	case <-ctx.Done():
	case <-s.server.ending.Done():
	}
	// Nobody takes the permit, should it have come meanwhile.
	r.now = t.now()
	h.mu.Lock()
	if p != nil && p.reply == reply && p.standing != over {
		p.abandon(&r)
	}
	h.mu.Unlock()
	t.wake(&r)
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return nil, refusalError(t.drainRefusal(""))
}

func result(a answer) (*outriggerv1.Permit, error) {
	if a.refusal != nil {
		return nil, refusalError(a.refusal)
	}
	return a.permit, nil
}

// refusalError returns a refusal as a gRPC status error with its details.
func refusalError(r *policy.Refusal) error {
	s := &spb.Status{}
	if r.Reason == policy.ReasonNone || proto.Unmarshal(r.AppendDetails(nil), s) != nil {
		return status.Error(codes.Code(r.Code()), text(r.Message))
	}
	return status.FromProto(s).Err()
}

// peerHost returns the host that a request comes from, without the port: every
// connection has another one.
func peerHost(ctx context.Context) string {
	address := peerAddress(ctx)
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// criticalities are the core's by the API's.
var criticalities = [...]policy.Criticality{
	outriggerv1.Criticality_CRITICALITY_UNSPECIFIED: policy.Critical,
	outriggerv1.Criticality_CRITICAL_PLUS:           policy.CriticalPlus,
	outriggerv1.Criticality_CRITICAL:                policy.Critical,
	outriggerv1.Criticality_SHEDDABLE_PLUS:          policy.SheddablePlus,
	outriggerv1.Criticality_SHEDDABLE:               policy.Sheddable,
}
