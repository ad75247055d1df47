package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

// python: an app in another language registers a user, and works beside the one in
// Go.
func (s *story) python(ctx context.Context) error {
	dir, err := stage.Scratch("welcome-email/python")
	if err == nil {
		err = stage.Install(ctx, dir, "requirements.txt",
			[]string{"python3", "-m", "venv", "venv"},
			[]string{"venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
		)
	}
	if err != nil {
		fmt.Println("-- SKIPPED: Alan registers with the app in Python:", err)
		return nil
	}
	if err := stubs(ctx, dir); err != nil {
		return err
	}
	fmt.Println("-- Alan registers with the app in Python")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	app := exec.CommandContext(ctx, filepath.Join(dir, "venv/bin/python"), filepath.Join(dir, "shop.py"), s.agent.API, s.users.path, "Alan", "alan@example.com")
	out, err := app.CombinedOutput()
	if err != nil {
		return fmt.Errorf("shop.py: %w\n%s", err, out)
	}
	fmt.Print(string(out))
	return s.once(ctx, user{Name: "Alan", Email: "alan@example.com"})
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
