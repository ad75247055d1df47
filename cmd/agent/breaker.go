package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newBreaker() *cobra.Command {
	return group("breaker", "Show and move circuit breakers", "  outrigger breaker list",
		newBreakerList(),
		newBreakerMove("open", "Open a breaker until it is closed or reset",
			func(ctx context.Context, c outriggerv1.BreakerServiceClient, name string) (*outriggerv1.Breaker, error) {
				answer, err := c.OpenBreaker(ctx, &outriggerv1.OpenBreakerRequest{Name: name})
				return answer.GetBreaker(), err
			}),
		newBreakerMove("close", "Close a breaker; it goes on to protect",
			func(ctx context.Context, c outriggerv1.BreakerServiceClient, name string) (*outriggerv1.Breaker, error) {
				answer, err := c.CloseBreaker(ctx, &outriggerv1.CloseBreakerRequest{Name: name})
				return answer.GetBreaker(), err
			}),
		newBreakerMove("reset", "Make a breaker as new: closed, nothing counted",
			func(ctx context.Context, c outriggerv1.BreakerServiceClient, name string) (*outriggerv1.Breaker, error) {
				answer, err := c.ResetBreaker(ctx, &outriggerv1.ResetBreakerRequest{Name: name})
				return answer.GetBreaker(), err
			}),
	)
}

func newBreakerList() *cobra.Command {
	var r remote
	var service string
	c := r.flags(&cobra.Command{
		Use:   "list",
		Short: "List the breakers, what they do and why",
		Example: `  outrigger breaker list
  outrigger breaker list --service greeter -o json`,
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				client := outriggerv1.NewBreakerServiceClient(agent)
				request := &outriggerv1.ListBreakersRequest{Service: service, PageSize: pageSize}
				all := &outriggerv1.ListBreakersResponse{}
				for {
					page, err := client.ListBreakers(ctx, request)
					if err != nil {
						return err
					}
					all.Breakers = append(all.Breakers, page.GetBreakers()...)
					if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
						break
					}
				}
				if r.output == outputJSON {
					return printMessage(c.OutOrStdout(), all)
				}
				breakerTable(all.GetBreakers(), time.Now()).print(c.OutOrStdout(), coloursOf(c.OutOrStdout()))
				if len(all.GetBreakers()) == 0 {
					fmt.Fprintln(c.OutOrStdout(), "no breakers: no service is configured or was called yet, or their mode is OFF")
				}
				return nil
			})
		},
	})
	c.Flags().StringVar(&service, "service", "", "only those of `SERVICE`")
	return c
}

func newBreakerMove(verb, short string, move func(context.Context, outriggerv1.BreakerServiceClient, string) (*outriggerv1.Breaker, error)) *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Example: "  outrigger breaker " + verb + " greeter\n" +
			"  outrigger breaker " + verb + " greeter/helloworld.Greeter/SayHello\n" +
			"  outrigger breaker " + verb + " greeter@127.0.0.1:50051",
		Args: exactly(1, "the NAME of one breaker, as `outrigger breaker list` shows it"),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				b, err := move(ctx, outriggerv1.NewBreakerServiceClient(agent), args[0])
				if err != nil {
					return err
				}
				if r.output == outputJSON {
					return printMessage(c.OutOrStdout(), &outriggerv1.GetBreakerResponse{Breaker: b})
				}
				sayBreaker(c.OutOrStdout(), b)
				return nil
			})
		},
	})
}

func sayBreaker(w io.Writer, b *outriggerv1.Breaker) {
	fmt.Fprintf(w, "%s is %s: %s\n", oneLine(b.GetName()), b.GetState(), oneLine(b.GetReason()))
	if b.GetMode() == outriggerv1.Breaker_OBSERVE && b.GetState() == outriggerv1.Breaker_OPEN {
		fmt.Fprintln(w, "its mode is OBSERVE: calls go through all the same, and those it would refuse are counted")
	}
}

func breakerTable(list []*outriggerv1.Breaker, now time.Time) *table {
	t := newTable("BREAKER", "STATE", "MODE", ">FOR", ">PROBE IN", ">REFUSED", "REASON")
	for _, b := range list {
		since := "–"
		if b.GetSince() != nil {
			since = elapsed(now.Sub(b.GetSince().AsTime()))
		}
		t.add(b.GetName(), breakerState(b), b.GetMode().String(), since, probeIn(b, now), refusedBy(b), dash(b.GetReason()))
	}
	return t
}

func breakerState(b *outriggerv1.Breaker) cell {
	t := bad
	switch {
	case b.GetState() == outriggerv1.Breaker_CLOSED:
		t = good
	case b.GetState() == outriggerv1.Breaker_HALF_OPEN, b.GetMode() == outriggerv1.Breaker_OBSERVE:
		t = warning
	}
	return cell{b.GetState().String(), t}
}

// probeIn says when an open breaker lets a probe through.
func probeIn(b *outriggerv1.Breaker, now time.Time) string {
	if b.GetState() != outriggerv1.Breaker_OPEN || b.GetOpenUntil() == nil {
		return "–"
	}
	if left := b.GetOpenUntil().AsTime().Sub(now); left > 0 {
		return elapsed(left + time.Second - 1) // up: "0s" would read as now
	}
	return "next call"
}

func refusedBy(b *outriggerv1.Breaker) string {
	if b.GetMode() == outriggerv1.Breaker_OBSERVE {
		return "would " + count(b.GetWouldRefuse())
	}
	return count(b.GetRefused())
}
