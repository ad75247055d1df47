package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

// openPython starts the app in Python. nil: this machine can't run it, and the
// example says so.
func openPython(ctx context.Context, api, database string) (*stage.App, error) {
	dir, err := stage.Scratch("welcome-email/python")
	if err == nil {
		err = stage.Install(ctx, dir, "requirements.txt",
			[]string{"python3", "-m", "venv", "venv"},
			[]string{"venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
		)
	}
	if err != nil {
		fmt.Println("-- SKIPPED: the app in Python, whose share the one in Go does:", err)
		return nil, nil
	}
	if err := stubs(ctx, dir); err != nil {
		return nil, err
	}
	return stage.StartApp(ctx, dir, nil, "venv/bin/python", "shop.py", api, database)
}

// stubs makes Python code out of proto/, and of the one file that it imports beside
// what protoc has.
func stubs(ctx context.Context, dir string) error {
	if err := stage.Run(ctx, "tools", "go", "mod", "download", "github.com/bufbuild/protovalidate"); err != nil {
		return err
	}
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/bufbuild/protovalidate")
	list.Dir = "tools"
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	rules := filepath.Join(strings.TrimSpace(string(out)), "proto", "protovalidate")
	return stage.Run(ctx, ".", filepath.Join(dir, "venv/bin/python"), "-m", "grpc_tools.protoc", "-Iproto", "-I"+rules,
		"--python_out="+dir, "--grpc_python_out="+dir, "outrigger/v1/task.proto", "buf/validate/validate.proto")
}
