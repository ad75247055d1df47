package task

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	outrigger "github.com/outrigger-rpc/outrigger/agent"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// house is where real agents run, one after another, on one store and one socket.
type house struct {
	t           testing.TB
	config, api string
	stop        func()
}

func newHouse(t testing.TB) *house {
	dir := t.TempDir()
	h := &house{t: t, config: filepath.Join(dir, "outrigger.yaml"), api: "unix:" + filepath.Join(dir, "api")}
	text := fmt.Sprintf(`
egress: {address: "127.0.0.1:0"}
api: {address: %q}
admin: {address: "127.0.0.1:0"}
tasks:
  store: {sqlite: {path: %q}}
  drain: 100ms
  kinds: [{name: save, backoff: {base: 100ms}}, {name: delete}]
`, h.api, filepath.Join(dir, "tasks.db"))
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

// start runs an agent until stop.
func (h *house) start() {
	h.t.Helper()
	a, err := outrigger.New(outrigger.Options{ConfigPath: h.config, DrainTimeout: time.Second, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	h.stop = func() {
		stop()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	}
	select {
	case <-a.Ready():
	case err := <-ended:
		ended <- err
		h.t.Fatal(err)
	}
}

func (h *house) client() *Client {
	c, err := Dial(h.api)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return c
}

// lines is a log that its test reads.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), text)
}

// runs starts a worker of the house's agents, and returns what stops it and waits.
func (h *house) runs(w *Worker) (log *lines, stop func()) {
	log = &lines{}
	w.Logger = slog.New(slog.NewTextHandler(log, nil))
	c := h.client()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, c) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.t.Errorf("Run: %v", err)
		}
	})
	h.t.Cleanup(stop)
	return log, stop
}

func TestAChainIsWorkedWithARealAgent(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	failures := 2
	deleted := make(chan string, 1)
	h.runs(&Worker{Concurrency: 1, Kinds: map[string]Handler{
		"save": JSON(func(_ context.Context, name string) (person, error) {
			if failures--; failures >= 0 {
				return person{}, RetryAfter(0, fmt.Errorf("%d more", failures))
			}
			return person{name}, nil
		}),
		"delete": JSON(func(_ context.Context, name string) (any, error) {
			if name == "Bo" {
				return nil, Permanent(fmt.Errorf("Bo stays"))
			}
			deleted <- name
			return nil, nil
		}),
	}})
	c := h.client()

	save := Step("save", App("save", nil), map[string]string{"app.payload": "input"})
	save.Compensation = &outriggerv1.StepCompensation{Task: App("delete", nil), Map: map[string]string{"app.payload": "steps.save.output.name"}}
	chain, err := c.Submit(ctx, Chain("Ada", save, Step("remove", App("delete", "Bo"), nil)), Options{Key: "Ada"})
	if err != nil {
		t.Fatal(err)
	}
	output, err := c.WaitStep(ctx, chain.GetId(), "save")
	if err != nil {
		t.Fatal(err)
	}
	var saved person
	if err := Result(output, &saved); err != nil || saved.Name != "Ada" {
		t.Errorf("save gave %v, %v; want Ada", saved, err)
	}
	if _, err := c.Wait(ctx, chain.GetId()); err == nil || !strings.Contains(err.Error(), "(chain) FAILED: step remove: Bo stays") {
		t.Errorf("Wait: %v", err)
	}
	if name := <-deleted; name != "Ada" {
		t.Errorf("%q was deleted again; want Ada", name)
	}
}

func TestAWorkerThatStopsIsNotHeldUpByARealAgent(t *testing.T) {
	h := newHouse(t)
	started, next := make(chan struct{}, 2), make(chan struct{})
	log, stop := h.runs(&Worker{Concurrency: 1, Kinds: map[string]Handler{"save": func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
		started <- struct{}{}
		<-next
		return nil, nil
	}}})
	c := h.client()
	first, err := c.Submit(t.Context(), App("save", 1), Options{})
	if err != nil {
		t.Fatal(err)
	}
	second, err := c.Submit(t.Context(), App("save", 2), Options{})
	if err != nil {
		t.Fatal(err)
	}
	<-started
	time.AfterFunc(50*time.Millisecond, func() { close(next) }) // the worker is stopping by then, or it does the second too
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > endTimeout/2 {
		t.Errorf("Run returned after %v: the agent did not end the stream", took)
	}
	if _, err := c.Wait(t.Context(), first.GetId()); err != nil {
		t.Errorf("the first: %v", err)
	}
	if got, err := c.API().GetTask(t.Context(), &outriggerv1.GetTaskRequest{Id: second.GetId()}); err != nil || len(started) == 0 && got.GetTask().GetState() != outriggerv1.TaskState_AVAILABLE {
		t.Errorf("the second: %v, %v", got, err)
	}
	if log.has("level=WARN") {
		t.Errorf("the worker warns: %s", log.text.String())
	}
}

func TestAWorkerOutlivesARealAgentThatRestarts(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	log, _ := h.runs(one(JSON(func(_ context.Context, name string) (string, error) { return "saved " + name, nil })))
	c := h.client()
	for n, name := range []string{"Ada", "Bo"} {
		if n > 0 {
			h.stop()
			h.start()
			for !log.has("the agent is there") { // with no task to do
				if ctx.Err() != nil {
					t.Fatal("the worker did not come back")
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
		task, err := c.Submit(ctx, App("save", name), Options{})
		if err != nil {
			t.Fatal(err)
		}
		done, err := c.Wait(ctx, task.GetId())
		if err != nil {
			t.Fatal(err)
		}
		var got string
		if err := Result(done.GetResult().GetPayload(), &got); err != nil || got != "saved "+name {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestAKindThatARealAgentDoesNotKnowEndsTheWorker(t *testing.T) {
	h := newHouse(t)
	err := (&Worker{Kinds: map[string]Handler{"knit": done}}).Run(t.Context(), h.client())
	if err == nil || !strings.Contains(err.Error(), `"knit" is no kind of tasks.kinds that apps work; known: delete, save`) {
		t.Errorf("Run: %v", err)
	}
}
