// Command external-http shows an HTTP dependency behind the agent: a server
// that begins to fail, the agent with the configuration beside this file, and
// an app whose only change is http_proxy.
//
//	go run ./examples/external-http
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

// server is the endpoint of outrigger.yaml: a port that the system gives to no
// client.
const server = "127.0.0.1:18161"

func main() { stage.Main("external-http", run) }

func run(ctx context.Context) error {
	dependency, err := startStock()
	if err != nil {
		return err
	}
	defer dependency.Close()
	agent, err := stage.StartAgent(ctx, "examples/external-http/outrigger.yaml")
	if err != nil {
		return err
	}
	defer agent.Stop()
	// What a shell does before the app starts. The app itself has nothing to do
	// with the agent.
	for _, other := range []string{"HTTP_PROXY", "NO_PROXY", "no_proxy"} {
		_ = os.Unsetenv(other) // this machine's own would lead around the agent
	}
	if err := os.Setenv("http_proxy", "http://"+agent.Egress); err != nil {
		return err
	}
	a := &app{ctx: ctx, client: &http.Client{Timeout: 5 * time.Second}}

	fmt.Println("-- the dependency is well")
	a.calls(3, "200")
	dependency.mood.Store(hangs)
	fmt.Println("-- it hangs: the agent waits 3 s, not for ever")
	a.calls(1, "504")
	dependency.mood.Store(fails)
	fmt.Println("-- it answers again, but with 500: the fifth failure in a row opens the breaker")
	a.calls(4, "500")
	a.calls(2, "503")
	dependency.mood.Store(well)
	fmt.Println("-- it is mended, and nobody waits 30 s: outrigger breaker close stock.example")
	if err := agent.Run(ctx, "breaker", "close", "stock.example"); err != nil {
		return err
	}
	a.calls(2, "200")

	fmt.Printf("-- %d calls were made, %d of them reached the dependency\n", a.made, dependency.arrived.Load())
	if n := dependency.arrived.Load(); a.err == nil && n != 10 {
		return fmt.Errorf("%d calls reached the dependency; want 10", n)
	}
	return a.err
}

// app is a plain HTTP client. err is the first thing that was not as it
// should be; after it no more calls are made.
type app struct {
	ctx    context.Context
	client *http.Client
	made   int
	err    error
}

// calls makes n calls, each of which must get an answer with the status.
func (a *app) calls(n int, status string) {
	for range n {
		if a.err != nil {
			return
		}
		a.made++
		begun := time.Now()
		got, text, err := a.get("http://stock.example/items/7")
		if err != nil {
			a.err = err
			return
		}
		fmt.Printf("call %2d: %s, after %.1f s: %s\n", a.made, got, time.Since(begun).Seconds(), text)
		if !strings.HasPrefix(got, status) {
			a.err = fmt.Errorf("call %d got %s; want %s", a.made, got, status)
		}
	}
}

// get returns the status, and the body or, of problem details, the reason and
// what was the matter.
func (a *app) get(address string) (status, text string, err error) {
	req, err := http.NewRequestWithContext(a.ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", "", err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", "", err
	}
	if res.Header.Get("Content-Type") != "application/problem+json" {
		return res.Status, strings.TrimSpace(string(body)), nil
	}
	var problem struct{ Reason, Detail string }
	if err := json.Unmarshal(body, &problem); err != nil {
		return "", "", err
	}
	return res.Status, problem.Reason + ": " + problem.Detail, nil
}

// The moods of the dependency.
const (
	well int32 = iota
	hangs
	fails
)

// stock is the dependency.
type stock struct {
	*http.Server
	mood    atomic.Int32
	arrived atomic.Int64
}

func startStock() (*stock, error) {
	l, err := net.Listen("tcp", server)
	if err != nil {
		return nil, err
	}
	s := new(stock)
	s.Server = &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(s.answer)}
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println("the dependency:", err)
		}
	}()
	return s, nil
}

func (s *stock) answer(w http.ResponseWriter, r *http.Request) {
	s.arrived.Add(1)
	switch s.mood.Load() {
	case hangs:
		<-r.Context().Done()
	case fails:
		http.Error(w, "out of order", http.StatusInternalServerError)
	default:
		fmt.Fprintln(w, "12 in stock")
	}
}
