// Command http shows an HTTP dependency behind the agent: a server that begins
// to fail, the agent with the configuration beside this file, and an app whose
// only change is http_proxy.
//
//	go run ./examples/http
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

// server is the endpoint of outrigger.yaml: a port that the system gives to no
// client.
const server = "127.0.0.1:18161"

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "http:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var down atomic.Bool
	var arrived atomic.Int64
	stock, err := startStock(&down, &arrived)
	if err != nil {
		return err
	}
	defer stock.Close()
	egress, stop, err := startAgent(ctx)
	if err != nil {
		return err
	}
	defer stop()

	// What a shell does before the app starts. The app itself has nothing to do
	// with the agent.
	if err := os.Setenv("http_proxy", "http://"+egress); err != nil {
		return err
	}
	app := &http.Client{Timeout: 5 * time.Second}
	for i := range 10 {
		if i == 3 {
			down.Store(true)
			fmt.Println("-- the dependency begins to fail")
		}
		res, err := app.Get("http://stock.example/items/7")
		if err != nil {
			return err
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		fmt.Printf("call %2d: %s %s\n", i+1, res.Status, strings.TrimSpace(string(body)))
	}
	fmt.Printf("-- 10 calls were made, %d of them reached the dependency\n", arrived.Load())
	return nil
}

// startStock is the dependency.
func startStock(down *atomic.Bool, arrived *atomic.Int64) (*http.Server, error) {
	l, err := net.Listen("tcp", server)
	if err != nil {
		return nil, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived.Add(1)
		if down.Load() {
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, "12 in stock")
	})}
	go func() { _ = s.Serve(l) }()
	return s, nil
}

// startAgent runs the agent from source. stop lets it drain.
func startAgent(ctx context.Context) (egress string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "http")
	if err != nil {
		return "", nil, err
	}
	binary := dir + "/outrigger"
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/agent").CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, binary, "run", "-c", "examples/http/outrigger.yaml")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "outrigger: ready egress="); ok {
			egress, _, _ = strings.Cut(rest, " ")
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return egress, func() {
				_ = cmd.Process.Signal(os.Interrupt)
				_ = cmd.Wait()
				_ = os.RemoveAll(dir)
			}, nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return "", nil, errors.Join(errors.New("the agent does not start"), cmd.Wait())
}
