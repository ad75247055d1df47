package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// agentService implements outrigger.v1.AgentService.
type agentService struct {
	outriggerv1.UnimplementedAgentServiceServer
	server *Server
}

func (a *agentService) GetAgent(context.Context, *outriggerv1.GetAgentRequest) (*outriggerv1.GetAgentResponse, error) {
	return &outriggerv1.GetAgentResponse{Agent: a.server.showAgent()}, nil
}

func (a *agentService) GetStatus(_ context.Context, r *outriggerv1.GetStatusRequest) (*outriggerv1.GetStatusResponse, error) {
	services, err := a.server.services(r.GetService())
	if err != nil {
		return nil, err
	}
	return &outriggerv1.GetStatusResponse{Status: a.server.status(services)}, nil
}

func (a *agentService) WatchStatus(r *outriggerv1.WatchStatusRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchStatusResponse]) error {
	first := true
	return a.server.watch(stream.Context(), r.GetInterval(), func() error {
		services, err := a.server.servicesSince(r.GetService(), first)
		if err != nil {
			return err
		}
		first = false
		return stream.Send(&outriggerv1.WatchStatusResponse{Status: a.server.status(services)})
	})
}

// maxMessage bounds a status message: it travels in a header.
const maxMessage = 6 << 10

func (a *agentService) Reload(ctx context.Context, _ *outriggerv1.ReloadRequest) (*outriggerv1.ReloadResponse, error) {
	a.server.log.InfoContext(ctx, "an operator asked for a reload", "peer", peerAddress(ctx))
	if err := a.server.agent.Reload(ctx); err != nil {
		message := text(err.Error())
		if len(message) > maxMessage {
			message = text(message[:maxMessage]) + " …"
		}
		return nil, status.Error(codes.FailedPrecondition, message)
	}
	a.server.Changed()
	return &outriggerv1.ReloadResponse{Agent: a.server.showAgent()}, nil
}
