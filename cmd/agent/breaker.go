package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newBreaker() *cobra.Command {
	return group("breaker", "Show and move circuit breakers",
		newBreakerList(),
		newBreakerMove("open", "Open a breaker until it is closed or reset", func(ctx context.Context, c outriggerv1.BreakerServiceClient, name string) (*outriggerv1.Breaker, error) {
			r, err := c.OpenBreaker(ctx, &outriggerv1.OpenBreakerRequest{Name: name})
			return r.GetBreaker(), err
		}),
		newBreakerMove("close", "Close a breaker; it goes on to protect", func(ctx context.Context, c outriggerv1.BreakerServiceClient, name string) (*outriggerv1.Breaker, error) {
			r, err := c.CloseBreaker(ctx, &outriggerv1.CloseBreakerRequest{Name: name})
			return r.GetBreaker(), err
		}),
		newBreakerMove("reset", "Make a breaker as new", func(ctx context.Context, c outriggerv1.BreakerServiceClient, name string) (*outriggerv1.Breaker, error) {
			r, err := c.ResetBreaker(ctx, &outriggerv1.ResetBreakerRequest{Name: name})
			return r.GetBreaker(), err
		}))
}

func newBreakerList() *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     "list",
		Short:   "List the breakers that a call has used",
		Example: "  outrigger breaker list -o json",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := limited(ctx)
				defer cancel()
				all := &outriggerv1.ListBreakersResponse{}
				for token := ""; ; {
					page, err := outriggerv1.NewBreakerServiceClient(cc).ListBreakers(ctx, &outriggerv1.ListBreakersRequest{PageSize: 1000, PageToken: token})
					if err != nil {
						return err
					}
					all.Breakers = append(all.Breakers, page.GetBreakers()...)
					if token = page.GetNextPageToken(); token == "" {
						break
					}
				}
				return r.print(c, all, func(t *table) {
					t.row("NAME", "STATE", "MODE", "PROBE IN", "REFUSED", "REASON")
					for _, b := range all.GetBreakers() {
						t.row(b.GetName(), b.GetState().String(), b.GetMode().String(), dash(probeIn(b)), refused(b), b.GetReason())
					}
				})
			})
		},
	})
}

func probeIn(b *outriggerv1.Breaker) string {
	if b.GetOpenUntil() == nil {
		return ""
	}
	return ahead(b.GetOpenUntil().AsTime(), time.Now())
}

func refused(b *outriggerv1.Breaker) string {
	if b.GetMode() == outriggerv1.Breaker_OBSERVE {
		return fmt.Sprintf("would: %d", b.GetWouldRefuse())
	}
	return fmt.Sprint(b.GetRefused())
}

func newBreakerMove(verb, short string, do func(context.Context, outriggerv1.BreakerServiceClient, string) (*outriggerv1.Breaker, error)) *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     verb + " NAME",
		Short:   short,
		Example: "  outrigger breaker " + verb + " greeter",
		Args:    exactly(1, "the breaker's NAME (`outrigger breaker list` shows them)"),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := limited(ctx)
				defer cancel()
				b, err := do(ctx, outriggerv1.NewBreakerServiceClient(cc), args[0])
				if err != nil {
					return err
				}
				return r.print(c, &outriggerv1.GetBreakerResponse{Breaker: b}, func(t *table) {
					t.row(fmt.Sprintf("%s is %s: %s", b.GetName(), strings.ReplaceAll(b.GetState().String(), "_", "-"), b.GetReason()))
				})
			})
		},
	})
}
