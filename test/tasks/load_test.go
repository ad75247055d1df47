//go:build linux

package tasks

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// kinds is the tasks block's part that the load needs: a kind that workers do, and
// soon enough retries.
const kinds = `
queue_capacity: 1000000
workers: 16
lease: 2s
kinds:
  - {name: resize, lease: 2s, backoff: {base: 100ms, max: 1s}}
  - {name: grpc, backoff: {base: 100ms, max: 1s}}
  - {name: http, backoff: {base: 100ms, max: 1s}}
  - {name: email, backoff: {base: 100ms, max: 1s}}
`

// block is a tasks block with a store and the world's mail server.
func block(w *world, store string) string {
	return fmt.Sprintf("store: %s\nemail: {server: %q, from: \"Test <test@example.com>\"}\n%s", store, w.mails, kinds)
}

func sqlite(path string) string { return fmt.Sprintf("{sqlite: {path: %q}}", path) }
func onPostgres(c *cluster) string {
	return fmt.Sprintf("{postgres: {url: %q, connect_timeout: 2s}}", c.URL())
}

// grpcWork is a unary call to the world.
func grpcWork(work string) *outriggerv1.TaskSpec {
	message, _ := proto.Marshal(wrapperspb.String(work)) // a string always can
	return task.GRPC("calls", doMethod, message)
}

func (w *world) httpWork(work string) *outriggerv1.TaskSpec {
	return task.HTTP(&outriggerv1.HttpWork{Url: "http://" + w.hooks + "/" + work, Body: []byte("hello")})
}

func emailWork(work string) *outriggerv1.TaskSpec {
	return task.Email(&outriggerv1.EmailWork{To: []string{"ada@example.com"}, Subject: work, Text: "hello"})
}

// chainWork is three steps of three kinds. The first would be undone.
func (w *world) chainWork(work string) *outriggerv1.TaskSpec {
	check := task.Step("validate", task.App("resize", nil), map[string]string{"app.payload": "input"})
	check.Compensation = &outriggerv1.StepCompensation{Task: w.httpWork(work + "/undo")}
	return task.Chain(work+"/validate", check, task.Step("save", w.httpWork(work+"/save"), nil), task.Step("welcome", emailWork(work+"/welcome"), nil))
}

// load submits work of all kinds until it ends, and never takes no for an answer: it
// asks again, under the same key, until the agent acknowledges.
type load struct {
	w      *world
	client *task.Client
	group  sync.WaitGroup
	ending context.Context
	end    context.CancelFunc
	next   atomic.Int64
	// most is how much may be owed: beyond, submitters wait.
	most int
	// again counts submits that had to be repeated, existed those that found
	// that the agent had the task already.
	again, existed atomic.Int64

	mu  sync.Mutex
	odd map[string]int // errors that no client should see
}

// startLoad starts so many submitters, and a worker for the kind resize.
func startLoad(t *testing.T, w *world, client *task.Client, seed uint64, submitters int) *load {
	l := &load{w: w, client: client, most: 3000, odd: make(map[string]int)}
	l.ending, l.end = context.WithCancel(context.Background())
	for i := range submitters {
		random := rand.New(rand.NewPCG(seed, uint64(i)))
		l.group.Go(func() {
			for l.ending.Err() == nil {
				l.one(random)
			}
		})
	}
	startWorker(t, w, client, "worker")
	t.Cleanup(l.stop)
	return l
}

// startWorker does tasks of the kind resize until the test ends.
func startWorker(t *testing.T, w *world, client *task.Client, name string) {
	worker := task.Worker{Name: name, Concurrency: 16, Drain: time.Second, Logger: slog.New(slog.DiscardHandler), Kinds: map[string]task.Handler{
		"resize": func(_ context.Context, leased *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			var work string
			if err := task.Result(leased.GetPayload(), &work); err != nil {
				return nil, task.Permanent(err)
			}
			w.do(work, leased.GetId(), fmt.Sprint(leased.GetAttempt()))
			return leased.GetPayload(), nil
		},
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx, client) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the worker ended: %v", err)
		}
	})
}

// one submits one piece of work of a random kind, or a batch.
func (l *load) one(random *rand.Rand) {
	for l.w.behind() > l.most && l.ending.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	n := l.next.Add(1)
	switch k := random.IntN(10); {
	case k < 3:
		l.submit(fmt.Sprintf("grpc-%d", n), grpcWork)
	case k < 5:
		l.submit(fmt.Sprintf("http-%d", n), l.w.httpWork)
	case k < 7:
		l.submit(fmt.Sprintf("resize-%d", n), func(work string) *outriggerv1.TaskSpec { return task.App("resize", work) })
	case k < 8:
		l.submit(fmt.Sprintf("email-%d", n), emailWork)
	case k < 9:
		l.chain(fmt.Sprintf("chain-%d", n))
	default:
		l.batch(n, 10)
	}
}

// submit has a piece of work accepted.
func (l *load) submit(work string, spec func(string) *outriggerv1.TaskSpec) {
	if t := l.accepted(work, spec(work)); t != nil {
		l.w.accept(work, accepted{id: t.GetId(), effects: []string{work}})
	}
}

func (l *load) chain(work string) {
	if t := l.accepted(work, l.w.chainWork(work)); t != nil {
		l.w.accept(work, accepted{id: t.GetId(), effects: []string{work + "/validate", work + "/save", work + "/welcome"}, never: []string{work + "/undo"}})
	}
}

// accepted submits until the agent acknowledges. nil: the load ended before.
func (l *load) accepted(work string, spec *outriggerv1.TaskSpec) *outriggerv1.Task {
	for try := 0; l.ending.Err() == nil; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		answer, err := l.client.API().SubmitTask(ctx, &outriggerv1.SubmitTaskRequest{Task: spec, IdempotencyKey: work})
		cancel()
		if err == nil {
			if answer.GetExisted() {
				l.existed.Add(1)
			}
			return answer.GetTask()
		}
		l.refused(err)
	}
	return nil
}

// batch has several tasks accepted in one call, without keys: all or none are there,
// and when the answer is lost nobody knows which.
func (l *load) batch(n int64, size int) {
	request := &outriggerv1.SubmitTasksRequest{}
	var works []string
	for i := range size {
		work := fmt.Sprintf("batch-%d-%d", n, i)
		works = append(works, work)
		request.Tasks = append(request.Tasks, &outriggerv1.SubmitTaskRequest{Task: grpcWork(work)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	answer, err := l.client.API().SubmitTasks(ctx, request)
	if err != nil {
		l.refused(err)
		return
	}
	for i, work := range works {
		l.w.accept(work, accepted{id: answer.GetTasks()[i].GetTask().GetId(), effects: []string{work}})
	}
}

// refused waits a little before the next try, and keeps what is odd.
func (l *load) refused(err error) {
	l.again.Add(1)
	if code := status.Code(err); code != codes.Unavailable {
		l.mu.Lock()
		l.odd[err.Error()]++
		l.mu.Unlock()
	}
	select {
	case <-l.ending.Done():
	case <-time.After(20 * time.Millisecond):
	}
}

// stop ends the submitters. What was not acknowledged by then is not asked for.
func (l *load) stop() {
	l.end()
	l.group.Wait()
}

// settle waits until the agent has nothing left to do, checks that each accepted
// task COMPLETED, and compares what was accepted with what was seen.
func (w *world) settle(t *testing.T, client *task.Client, limit time.Duration) {
	t.Helper()
	open := []outriggerv1.TaskState{outriggerv1.TaskState_SCHEDULED, outriggerv1.TaskState_AVAILABLE, outriggerv1.TaskState_RUNNING, outriggerv1.TaskState_RETRYABLE}
	took := within(t, limit, "the queues are empty", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		page, err := client.API().ListTasks(ctx, &outriggerv1.ListTasksRequest{States: open, PageSize: 1000})
		if err != nil {
			return err
		}
		if len(page.GetTasks()) > 0 {
			return fmt.Errorf("%d tasks at least have not ended, such as %v", len(page.GetTasks()), page.GetTasks()[len(page.GetTasks())-1])
		}
		return nil
	})
	states := make(map[string]outriggerv1.TaskState)
	attempts := make(map[uint32]int)
	for token := ""; ; {
		page, err := client.API().ListTasks(t.Context(), &outriggerv1.ListTasksRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range page.GetTasks() {
			states[one.GetId()] = one.GetState()
			if one.GetParent() == "" && one.GetKind() != "chain" {
				attempts[one.GetAttempts()]++
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	bad := make(map[outriggerv1.TaskState]int)
	for _, id := range w.ids() {
		if s := states[id]; s != outriggerv1.TaskState_COMPLETED {
			if bad[s]++; bad[s] <= 3 {
				answer, err := client.API().GetTask(t.Context(), &outriggerv1.GetTaskRequest{Id: id})
				t.Errorf("task %s was accepted and is %v: %v, %v", id, s, answer.GetTask(), err)
			}
		}
	}
	if len(bad) > 0 {
		t.Errorf("accepted tasks that are not COMPLETED, by state: %v", bad)
	}
	b := w.audit()
	t.Logf("%v", b)
	t.Logf("queues empty after %v; tasks by attempts: %v", took.Round(10*time.Millisecond), attempts)
	for i, wrong := range b.wrong {
		if i == 20 {
			t.Errorf("and %d more", len(b.wrong)-i)
			break
		}
		t.Error(wrong)
	}
}

// probe is what the relay's load says: no task.
const probe = "probe"

// relayed is calls through the agent's egress at an even pace.
type relayed struct {
	stop          chan struct{}
	group         sync.WaitGroup
	calls, failed atomic.Int64
	slowest       atomic.Int64
	why           atomic.Pointer[error]
}

// callThrough makes so many calls a second through the relay until check.
func (a *agent) callThrough(perSecond int) *relayed {
	a.t.Helper()
	conn, err := grpc.NewClient("unix:"+a.dir+"/egress.sock", grpc.WithAuthority("calls"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		a.t.Fatal(err)
	}
	r := &relayed{stop: make(chan struct{})}
	r.group.Go(func() {
		defer conn.Close()
		var calls sync.WaitGroup
		defer calls.Wait()
		began := time.Now()
		for i := 0; ; i++ {
			select {
			case <-r.stop:
				return
			case <-time.After(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(perSecond)))):
			}
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				at := time.Now()
				r.calls.Add(1)
				if err := conn.Invoke(ctx, doMethod, wrapperspb.String(probe), new(wrapperspb.StringValue)); err != nil {
					r.failed.Add(1)
					r.why.Store(&err)
				}
				if took := int64(time.Since(at)); took > r.slowest.Load() {
					r.slowest.Store(took)
				}
			})
		}
	})
	return r
}

// check ends the calls: none may have failed.
func (r *relayed) check(t *testing.T) {
	t.Helper()
	close(r.stop)
	r.group.Wait()
	t.Logf("calls through the relay meanwhile: %d, %d failed, the slowest took %v", r.calls.Load(), r.failed.Load(), time.Duration(r.slowest.Load()).Round(time.Millisecond))
	if why := r.why.Load(); why != nil {
		t.Errorf("calls through the relay failed, such as: %v", *why)
	}
	if r.calls.Load() == 0 {
		t.Error("no call went through the relay")
	}
}
