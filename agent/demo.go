package agent

import (
	"context"
	"io"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/demo"
)

// Demo plays the demo for about d and prints to w.
func Demo(ctx context.Context, w io.Writer, d time.Duration) error { return demo.Run(ctx, w, d) }

// DemoUpstream is one of the demo's servers, in a process of its own.
func DemoUpstream(ctx context.Context, name string) error { return demo.Upstream(ctx, name) }
