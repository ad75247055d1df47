package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
	"github.com/outrigger-rpc/outrigger/guard"
)

// visitsOfPython is how many visits worker.py makes.
const visitsOfPython = 10

// python: another language takes permits from the same pool.
func (p *pool) python(ctx context.Context) error {
	dir, err := stage.Scratch("pool/python")
	if err == nil {
		err = stage.Install(ctx, dir, "requirements.txt",
			[]string{"python3", "-m", "venv", "venv"},
			[]string{"venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"},
		)
	}
	if err != nil {
		fmt.Println("-- SKIPPED: two workers in Python beside six in Go:", err)
		return nil
	}
	if err := stubs(ctx, dir); err != nil {
		return err
	}
	fmt.Println("-- two workers in Python beside six in Go")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return together(8, func(i int) error {
		if i < 2 {
			name := fmt.Sprintf("python %d", i+1)
			worker := exec.CommandContext(ctx, filepath.Join(dir, "venv/bin/python"), filepath.Join(dir, "worker.py"), p.api, p.book.path, name, fmt.Sprint(visitsOfPython))
			out, err := worker.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w\n%s", name, err, out)
			}
			fmt.Print(string(out))
			n, err := p.book.of(ctx, name)
			if err == nil && n != visitsOfPython {
				err = fmt.Errorf("%s made %d visits; want %d", name, n, visitsOfPython)
			}
			return err
		}
		for range 20 {
			err := p.client.Do(ctx, request(), func(ctx context.Context, _ *guard.Permit) error {
				return p.book.visit(ctx, fmt.Sprintf("go %d", i-1), 20*time.Millisecond)
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// stubs makes Python code out of proto/, and of the one file that it imports
// beside what protoc has.
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
	protoc := []string{
		filepath.Join(dir, "venv/bin/python"), "-m", "grpc_tools.protoc", "-Iproto", "-I" + rules,
		"--python_out=" + dir, "--grpc_python_out=" + dir, "outrigger/v1/resilience.proto", "buf/validate/validate.proto",
	}
	return stage.Run(ctx, ".", protoc...)
}
