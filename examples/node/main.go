// Command node shows an app in Node behind the agent, with one environment
// variable and no change: two servers, the agent with the configuration beside
// this file, and app.js.
//
//	go run ./examples/node
package main

import (
	"context"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

func main() { stage.Main("node", run) }

func run(ctx context.Context) error {
	dir, err := stage.Scratch("node")
	if err != nil {
		return err
	}
	if err := stage.Install(ctx, dir, "package-lock.json", []string{"npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}); err != nil {
		return err
	}
	return stage.Greetings{
		Config:  "examples/node/outrigger.yaml",
		Servers: [2]string{"127.0.0.1:18181", "127.0.0.1:18182"},
		App:     []string{"node", "app.js"},
		Dir:     dir,
	}.Play(ctx)
}
