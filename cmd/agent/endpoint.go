package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newEndpoint() *cobra.Command {
	return group("endpoint", "Show endpoints, take them out of use and back",
		newEndpointList(),
		newEndpointMove("drain", "Send an address no new calls; those under way finish", func(ctx context.Context, c outriggerv1.EndpointServiceClient, address string) ([]*outriggerv1.Endpoint, error) {
			r, err := c.DrainEndpoint(ctx, &outriggerv1.DrainEndpointRequest{Address: address})
			return r.GetEndpoints(), err
		}),
		newEndpointMove("undrain", "Send an address calls again", func(ctx context.Context, c outriggerv1.EndpointServiceClient, address string) ([]*outriggerv1.Endpoint, error) {
			r, err := c.UndrainEndpoint(ctx, &outriggerv1.UndrainEndpointRequest{Address: address})
			return r.GetEndpoints(), err
		}))
}

func newEndpointList() *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     "list",
		Short:   "List endpoints with their state and why",
		Example: "  outrigger endpoint list",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := limited(ctx)
				defer cancel()
				all := &outriggerv1.ListEndpointsResponse{}
				for token := ""; ; {
					page, err := outriggerv1.NewEndpointServiceClient(cc).ListEndpoints(ctx, &outriggerv1.ListEndpointsRequest{PageSize: 1000, PageToken: token})
					if err != nil {
						return err
					}
					all.Endpoints = append(all.Endpoints, page.GetEndpoints()...)
					if token = page.GetNextPageToken(); token == "" {
						break
					}
				}
				return r.print(c, all, func(t *table) { endpointRows(t, all.GetEndpoints()) })
			})
		},
	})
}

func endpointRows(t *table, list []*outriggerv1.Endpoint) {
	t.row("SERVICE", "ADDRESS", "STATE", "IN FLIGHT", "CALLS", "FAILURES", "REASON")
	for _, e := range list {
		t.row(e.GetService(), e.GetAddress(), e.GetState().String(), fmt.Sprint(e.GetInFlight()), fmt.Sprint(e.GetCalls()), fmt.Sprint(e.GetFailures()), e.GetReason())
	}
}

func newEndpointMove(verb, short string, do func(context.Context, outriggerv1.EndpointServiceClient, string) ([]*outriggerv1.Endpoint, error)) *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     verb + " ADDR",
		Short:   short,
		Example: "  outrigger endpoint " + verb + " 127.0.0.1:50051",
		Args:    exactly(1, "the endpoint's ADDR"),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := limited(ctx)
				defer cancel()
				list, err := do(ctx, outriggerv1.NewEndpointServiceClient(cc), args[0])
				if err != nil {
					return err
				}
				return r.print(c, &outriggerv1.ListEndpointsResponse{Endpoints: list}, func(t *table) { endpointRows(t, list) })
			})
		},
	})
}
