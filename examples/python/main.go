// Command python shows an app in Python behind the agent, with one environment
// variable and no change: two servers, the agent with the configuration beside
// this file, and app.py.
//
//	go run ./examples/python
package main

import (
	"context"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

func main() { stage.Main("python", run) }

func run(ctx context.Context) error {
	dir, err := stage.Scratch("python")
	if err != nil {
		return err
	}
	if err := stage.Install(ctx, dir, "requirements.txt",
		[]string{"python3", "-m", "venv", "venv"},
		[]string{"venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
	); err != nil {
		return err
	}
	if err := stage.Run(ctx, dir, "venv/bin/python", "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=.", "greeter.proto"); err != nil {
		return err
	}
	return stage.Greetings{
		Config:  "examples/python/outrigger.yaml",
		Servers: [2]string{"127.0.0.1:18171", "127.0.0.1:18172"},
		App:     []string{"venv/bin/python", "app.py"},
		Dir:     dir,
	}.Play(ctx)
}
