package stage

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// Scratch copies an example's files to a folder that git ignores, where what
// is installed or generated does not disturb, and returns its path.
func Scratch(example string) (string, error) {
	from, to := filepath.Join("examples", example), filepath.Join(".cache", "examples", example)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return "", err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, entry.Name()))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(to, entry.Name()), text, 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Abs(to)
}

// Install runs the commands in the scratch folder dir, unless that was done
// before for the same content of the file lock. Where a command is absent or
// fails the example is skipped: it is the machine, or its registry.
func Install(ctx context.Context, dir, lock string, commands ...[]string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	wanted, err := os.ReadFile(filepath.Join(dir, lock))
	if err != nil {
		return err
	}
	stamp := filepath.Join(dir, ".installed")
	if done, err := os.ReadFile(stamp); err == nil && bytes.Equal(done, wanted) {
		return nil
	}
	for _, args := range commands {
		if err := Run(ctx, dir, args...); err != nil {
			return skipped(err.Error())
		}
	}
	return os.WriteFile(stamp, wanted, 0o600)
}

// Run runs one command in dir.
func Run(ctx context.Context, dir string, args ...string) error {
	cmd := command(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	return finish(cmd)
}

// App is a program that answers each line of its input with a line.
type App struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output chan string // closed at the end of it
}

// StartApp runs an app in dir. Of proxy variables it gets those in env alone: others
// that the machine may have would lead around the agent.
func StartApp(ctx context.Context, dir string, env []string, args ...string) (*App, error) {
	cmd := command(ctx, args[0], args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(unproxied(), env...), os.Stderr
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	a := &App{cmd: cmd, input: input, output: make(chan string)}
	go func() {
		defer close(a.output)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			a.output <- lines.Text()
		}
	}()
	return a, nil
}

// Say writes a line to the app and returns the line that it answers.
func (a *App) Say(line string) (string, error) {
	if _, err := fmt.Fprintln(a.input, line); err != nil {
		return "", fmt.Errorf("the app takes no input: %w", err)
	}
	select {
	case answer, ok := <-a.output:
		if !ok {
			return "", errors.New("the app ended before its input did")
		}
		return answer, nil
	case <-time.After(2 * patience):
		return "", fmt.Errorf("the app did not answer %q within %v", line, 2*patience)
	}
}

// Stop ends the app's input, and the app if it doesn't take that as its end.
func (a *App) Stop() {
	a.input.Close()
	last := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() })
	for range a.output { // what it still prints, nobody reads
	}
	_ = a.cmd.Wait()
	last.Stop()
}
