package discovery

import (
	"context"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// static is a list that never changes.
type static []balancer.Spec

// NewStatic returns a source of endpoints that the configuration lists. It has
// nothing to run; a feed delivers them at Start.
func NewStatic(list []balancer.Spec) Source { return static(list) }

// Name implements Source.
func (static) Name() string { return "static" }

// Run implements Source.
func (s static) Run(ctx context.Context, sink Sink) error {
	sink.Publish(specs(s), "")
	<-ctx.Done()
	return nil
}

// Refresh implements Source.
func (static) Refresh() {}
