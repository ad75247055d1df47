package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newEndpoint() *cobra.Command {
	return group("endpoint", "Show endpoints, take them out of use and back", "  outrigger endpoint list",
		newEndpointList(),
		newEndpointMove("drain", "Send an endpoint no new calls; those under way finish",
			func(ctx context.Context, c outriggerv1.EndpointServiceClient, service, address string) ([]*outriggerv1.Endpoint, error) {
				answer, err := c.DrainEndpoint(ctx, &outriggerv1.DrainEndpointRequest{Address: address, Service: service})
				return answer.GetEndpoints(), err
			}),
		newEndpointMove("undrain", "Send an endpoint calls again",
			func(ctx context.Context, c outriggerv1.EndpointServiceClient, service, address string) ([]*outriggerv1.Endpoint, error) {
				answer, err := c.UndrainEndpoint(ctx, &outriggerv1.UndrainEndpointRequest{Address: address, Service: service})
				return answer.GetEndpoints(), err
			}),
	)
}

func newEndpointList() *cobra.Command {
	var r remote
	var service string
	c := r.flags(&cobra.Command{
		Use:   "list",
		Short: "List the endpoints, how they are and why",
		Example: `  outrigger endpoint list
  outrigger endpoint list --service greeter -o json`,
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				client := outriggerv1.NewEndpointServiceClient(agent)
				request := &outriggerv1.ListEndpointsRequest{Service: service, PageSize: pageSize}
				all := &outriggerv1.ListEndpointsResponse{}
				for {
					page, err := client.ListEndpoints(ctx, request)
					if err != nil {
						return err
					}
					all.Endpoints = append(all.Endpoints, page.GetEndpoints()...)
					if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
						break
					}
				}
				return r.printEndpoints(c, all)
			})
		},
	})
	c.Flags().StringVar(&service, "service", "", "only those of `SERVICE`")
	return c
}

func newEndpointMove(verb, short string, move func(ctx context.Context, c outriggerv1.EndpointServiceClient, service, address string) ([]*outriggerv1.Endpoint, error)) *cobra.Command {
	var r remote
	var service string
	c := r.flags(&cobra.Command{
		Use:   verb + " ADDR",
		Short: short,
		Example: "  outrigger endpoint " + verb + " 127.0.0.1:50051\n" +
			"  outrigger endpoint " + verb + " 127.0.0.1:50051 --service greeter",
		Args: exactly(1, "the ADDR of one endpoint, as `outrigger endpoint list` shows it"),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				moved, err := move(ctx, outriggerv1.NewEndpointServiceClient(agent), service, args[0])
				if err != nil {
					return err
				}
				return r.printEndpoints(c, &outriggerv1.ListEndpointsResponse{Endpoints: moved})
			})
		},
	})
	c.Flags().StringVar(&service, "service", "", "only in this `SERVICE`; none: in every one that has the address")
	return c
}

func (r *remote) printEndpoints(c *cobra.Command, list *outriggerv1.ListEndpointsResponse) error {
	if r.output == outputJSON {
		return printMessage(c.OutOrStdout(), list)
	}
	t := newTable("SERVICE", "ENDPOINT", "STATE", "ZONE", ">PRIORITY", ">WEIGHT", ">IN FLIGHT", ">CALLS", ">FAILURES", "REASON")
	for _, e := range list.GetEndpoints() {
		t.add(e.GetService(), e.GetAddress(), endpointState(e), dash(e.GetZone()), count(e.GetPriority()), weight(e), count(e.GetInFlight()), count(e.GetCalls()), count(e.GetFailures()), dash(e.GetReason()))
	}
	t.print(c.OutOrStdout(), coloursOf(c.OutOrStdout()))
	if len(list.GetEndpoints()) == 0 {
		fmt.Fprintln(c.OutOrStdout(), "no endpoints: no service is configured or was called yet")
	}
	return nil
}

// weight is what the endpoint's share goes by: what it reports, in requests a
// second at full use, or what it was given.
func weight(e *outriggerv1.Endpoint) string {
	if w := e.GetReportedWeight(); w > 0 {
		return amount(w) + "/s"
	}
	return count(e.GetWeight())
}

func endpointState(e *outriggerv1.Endpoint) cell {
	t := bad
	switch e.GetState() {
	case outriggerv1.Endpoint_READY:
		t = good
	case outriggerv1.Endpoint_CONNECTING, outriggerv1.Endpoint_DRAINING:
		t = warning
	}
	return cell{e.GetState().String(), t}
}
