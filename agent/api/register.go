package api

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// defaultRegistration is how long a lease holds where nobody says.
const defaultRegistration = 30 * time.Second

// maxRegistrars bounds the streams that register endpoints.
const maxRegistrars = 1000

// Registered is an endpoint that a program registers.
type Registered struct {
	balancer.Spec
	// Terminating: it wants no new calls.
	Terminating bool
}

// Registrar keeps the endpoints that programs register. An error that Refuse
// made says whose mistake it is. Safe for concurrent use; its methods don't
// block.
type Registrar interface {
	// Register gives a lease on an endpoint, or takes the address's over, and
	// says how long it holds: not longer than the service allows.
	Register(service string, e Registered, length time.Duration) (id string, granted time.Duration, err error)
	// Renew lets a lease begin anew and says how long it holds.
	Renew(id string) (time.Duration, error)
	// Unregister ends a lease; one that is over is none.
	Unregister(id string)
	// Stream returns a registration without endpoints.
	Stream(service string) Registration
}

// Registration is what one stream registers. It is used by one goroutine.
type Registration interface {
	// Set says what is registered from now on, and returns how many the service
	// has then. An error changes nothing.
	Set([]Registered) (registered int, err error)
	// Close ends what it has.
	Close()
}

// Mistake is why a registration is refused.
type Mistake uint8

// The mistakes, and the status that each is answered with.
const (
	NoRegistrations Mistake = iota // the service takes none: FAILED_PRECONDITION
	Full                           // it has as many as it may: RESOURCE_EXHAUSTED
	NoLease                        // there is no such lease: NOT_FOUND
	BadEndpoint                    // nothing can be called there: INVALID_ARGUMENT
)

var mistakes = [...]codes.Code{codes.FailedPrecondition, codes.ResourceExhausted, codes.NotFound, codes.InvalidArgument}

// Refuse returns an error that is answered with the mistake's status.
func Refuse(m Mistake, why error) error { return status.Error(mistakes[m], text(why.Error())) }

func registered(r *outriggerv1.Registration) Registered {
	return Registered{
		Spec:        balancer.Spec{Address: r.GetAddress(), Weight: max(r.GetWeight(), 1), Zone: r.GetZone(), Priority: r.GetPriority()},
		Terminating: r.GetTerminating(),
	}
}

// errNoRegistrar is for an agent that keeps no registrations.
var errNoRegistrar = status.Error(codes.Unimplemented, "this agent takes no registrations")

func (e *endpointService) RegisterEndpoint(ctx context.Context, r *outriggerv1.RegisterEndpointRequest) (*outriggerv1.RegisterEndpointResponse, error) {
	if e.server.registrar == nil {
		return nil, errNoRegistrar
	}
	if _, err := e.server.services(r.GetService()); err != nil {
		return nil, err
	}
	length := defaultRegistration
	if r.GetLease() != nil {
		length = r.GetLease().AsDuration()
	}
	id, granted, err := e.server.registrar.Register(r.GetService(), registered(r.GetEndpoint()), length)
	if err != nil {
		return nil, err
	}
	e.server.log.InfoContext(ctx, "an endpoint was registered", "service", r.GetService(), "endpoint", r.GetEndpoint().GetAddress(), "lease", granted, "peer", peerAddress(ctx))
	return &outriggerv1.RegisterEndpointResponse{LeaseId: id, Lease: durationpb.New(granted)}, nil
}

func (e *endpointService) RenewEndpoint(_ context.Context, r *outriggerv1.RenewEndpointRequest) (*outriggerv1.RenewEndpointResponse, error) {
	if e.server.registrar == nil {
		return nil, errNoRegistrar
	}
	length, err := e.server.registrar.Renew(r.GetLeaseId())
	if err != nil {
		return nil, err
	}
	return &outriggerv1.RenewEndpointResponse{Lease: durationpb.New(length)}, nil
}

func (e *endpointService) UnregisterEndpoint(_ context.Context, r *outriggerv1.UnregisterEndpointRequest) (*outriggerv1.UnregisterEndpointResponse, error) {
	if e.server.registrar == nil {
		return nil, errNoRegistrar
	}
	e.server.registrar.Unregister(r.GetLeaseId())
	return &outriggerv1.UnregisterEndpointResponse{}, nil
}

// RegisterEndpoints holds what the stream registers until it ends, however it
// ends: the server's keepalive finds a client that died without a word.
func (e *endpointService) RegisterEndpoints(stream grpc.BidiStreamingServer[outriggerv1.RegisterEndpointsRequest, outriggerv1.RegisterEndpointsResponse]) error {
	s := e.server
	if s.registrar == nil {
		return errNoRegistrar
	}
	if s.registrars.Add(1) > maxRegistrars {
		s.registrars.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "%d streams register endpoints already, and no more are allowed; end one of them", maxRegistrars)
	}
	defer s.registrars.Add(-1)
	requests := make(chan *outriggerv1.RegisterEndpointsRequest)
	ended := make(chan error, 1)
	s.listening.Go(func() { // ends with the stream, which ends when this method returns
		for {
			request, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- request:
			case <-stream.Context().Done():
				return
			}
		}
	})
	var held Registration
	service := ""
	for {
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case request := <-requests:
			switch {
			case held == nil:
				if _, err := s.services(request.GetService()); err != nil {
					return err
				}
				service, held = request.GetService(), s.registrar.Stream(request.GetService())
				defer held.Close()
			case request.GetService() != service:
				return status.Errorf(codes.InvalidArgument, "service is %q, and was %q; want one service a stream", request.GetService(), service)
			}
			list := make([]Registered, len(request.GetEndpoints()))
			for i, r := range request.GetEndpoints() {
				list[i] = registered(r)
			}
			n, err := held.Set(list)
			if err != nil {
				return err
			}
			if err := stream.Send(&outriggerv1.RegisterEndpointsResponse{Endpoints: uint32(n)}); err != nil {
				return err
			}
		}
	}
}
