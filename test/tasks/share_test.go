//go:build linux

package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// sharedLease is how long after an agent's last sign of life the other one does its
// tasks, and lateness what a busy machine is let have beyond.
const (
	sharedLease = 4 * time.Second
	lateness    = 6 * time.Second
)

// pair is two agents on one PostgreSQL, of which the first holds tasks in mid-work.
type pair struct {
	w                *world
	first, second    *agent
	client1, client2 *task.Client
	release          func() // lets the first attempts be answered
	stuck, stuckIDs  []string
}

// startPair has the first agent begin tasks whose first attempts are not answered,
// as many as it has workers, and then starts the second one.
func startPair(t *testing.T) *pair {
	t.Helper()
	c := startPostgres(t)
	p := &pair{w: newWorld(t)}
	p.w.takes.Store(0)
	released := make(chan struct{})
	p.release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(p.release)
	hold := func(work, _, attempt string) {
		if strings.HasPrefix(work, "stuck-") && attempt == "1" {
			<-released
		}
	}
	p.w.hold.Store(&hold)
	tasks := strings.Replace(block(p.w, onPostgres(c)), "lease: 2s\n", "lease: "+sharedLease.String()+"\n", 1)
	p.first, p.second = configure(t, "the first agent", p.w, tasks), configure(t, "the second agent", p.w, tasks)
	p.client1, p.client2 = p.first.dial(), p.second.dial()
	p.first.start()
	const workers = 16
	for i := range workers {
		p.stuck = append(p.stuck, fmt.Sprintf("stuck-%d", i))
	}
	p.stuckIDs = p.w.submitHTTP(t, p.client1, p.stuck)
	within(t, 20*time.Second, "the first agent has begun them all", func() error {
		for _, work := range p.stuck {
			if p.w.times(work) == 0 {
				return errors.New(work + " is not begun")
			}
		}
		return nil
	})
	p.second.start()
	return p
}

// submitHTTP has http tasks accepted.
func (w *world) submitHTTP(t *testing.T, client *task.Client, works []string) (ids []string) {
	t.Helper()
	for _, work := range works {
		one, err := client.Submit(t.Context(), w.httpWork(work), task.Options{Key: work})
		if err != nil {
			t.Fatalf("submit %s: %v", work, err)
		}
		w.accept(work, accepted{id: one.GetId(), effects: []string{work}})
		ids = append(ids, one.GetId())
	}
	return ids
}

// completed waits until tasks are, and returns them with payloads.
func completed(t *testing.T, client *task.Client, ids []string, limit time.Duration) (ended []*outriggerv1.Task) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, id := range ids {
		one, err := client.Wait(ctx, id)
		if err != nil {
			t.Fatalf("task %s within %v: %v", id, limit, err)
		}
		ended = append(ended, one)
	}
	return ended
}

func numbered(name string, n int) (works []string) {
	for i := range n {
		works = append(works, fmt.Sprintf("%s-%d", name, i))
	}
	return works
}

func TestTheOtherAgentGoesOnWhenOneIsKilled(t *testing.T) {
	p := startPair(t)
	at := time.Now()
	p.first.kill()

	// What the dead one did not hold goes on at once.
	rest := p.w.submitHTTP(t, p.client2, numbered("rest", 200))
	completed(t, p.client2, rest, 20*time.Second)
	t.Logf("200 other tasks were submitted and done %v after the kill", time.Since(at).Round(10*time.Millisecond))
	ended := completed(t, p.client2, p.stuckIDs, sharedLease+lateness)

	t.Logf("what the killed agent held was done %v after the kill, with a lease of %v", time.Since(at).Round(10*time.Millisecond), sharedLease)
	for _, one := range ended {
		if one.GetAttempts() != 2 {
			t.Errorf("task %s was done by attempt %d, want 2", one.GetId(), one.GetAttempts())
		}
	}
	p.w.settle(t, p.client2, 20*time.Second)
}

// lostAttempts are those whose end was refused, as the agent's metrics have them.
func lostAttempts(t *testing.T, a *agent) (n int) {
	t.Helper()
	text, _, err := a.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^outrigger_task[a-z_]*\{[^}]*"lost"[^}]*\} (\d+)`).FindAllStringSubmatch(text, -1) {
		i, _ := strconv.Atoi(m[1])
		n += i
	}
	return n
}

func TestWhatAStoppedAgentEndsTooLateDoesNotCount(t *testing.T) {
	p := startPair(t)
	at := time.Now()
	p.first.signal(syscall.SIGSTOP)
	second := completed(t, p.client2, p.stuckIDs, sharedLease+lateness)
	t.Logf("what the stopped agent held was done elsewhere %v after it stopped, with a lease of %v", time.Since(at).Round(10*time.Millisecond), sharedLease)

	// Its own attempts are answered now, and it wakes up to tell.
	p.release()
	p.first.signal(syscall.SIGCONT)
	within(t, 20*time.Second, "the first agent has found its attempts lost", func() error {
		if n := lostAttempts(t, p.first); n < len(p.stuck) {
			return fmt.Errorf("its metrics say %d", n)
		}
		return nil
	})

	for i, id := range p.stuckIDs {
		answer, err := p.client2.API().GetTask(t.Context(), &outriggerv1.GetTaskRequest{Id: id, ShowPayload: true})
		if err != nil {
			t.Fatal(err)
		}
		got, want := answer.GetTask(), second[i]
		var body struct{ Attempt string }
		if err := json.Unmarshal(got.GetResult().GetPayload().GetData(), &body); err != nil || body.Attempt != "2" {
			t.Errorf("task %s: the result is %q, want the second attempt's (%v)", id, got.GetResult().GetPayload().GetData(), err)
		}
		if got.GetState() != outriggerv1.TaskState_COMPLETED || got.GetAttempts() != 2 || !got.GetEndedAt().AsTime().Equal(want.GetEndedAt().AsTime()) {
			t.Errorf("task %s is %v after attempt %d, ended at %v; want COMPLETED, 2, %v: what a stopped agent told late counted", id, got.GetState(), got.GetAttempts(), got.GetEndedAt().AsTime(), want.GetEndedAt().AsTime())
		}
	}
	// It works again.
	completed(t, p.client1, p.w.submitHTTP(t, p.client1, numbered("after", 50)), 20*time.Second)
	p.w.settle(t, p.client1, 20*time.Second)
}

// leaseOne leases one task of the kind resize, waiting for it.
func leaseOne(t *testing.T, client *task.Client, worker string, lease time.Duration) *outriggerv1.LeasedTask {
	t.Helper()
	answer, err := client.API().LeaseTasks(t.Context(), &outriggerv1.LeaseTasksRequest{
		Kinds: []string{"resize"}, Worker: worker, MaxTasks: 1, Wait: durationpb.New(20 * time.Second), Lease: durationpb.New(lease)})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.GetTasks()) != 1 {
		t.Fatalf("%s leased %d tasks, want 1", worker, len(answer.GetTasks()))
	}
	return answer.GetTasks()[0]
}

func text(s string) *outriggerv1.Payload {
	return &outriggerv1.Payload{Data: []byte(s), ContentType: "text/plain"}
}

func leaseOf(l *outriggerv1.LeasedTask) *outriggerv1.TaskLease {
	return &outriggerv1.TaskLease{Id: l.GetId(), Attempt: l.GetAttempt()}
}

// staleWorker leases by one agent, oversleeps, and is refused whatever it says,
// by either agent.
func staleWorker(t *testing.T, one, other *task.Client) {
	t.Helper()
	submitted, err := one.Submit(t.Context(), task.App("resize", "picture"), task.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stale := leaseOne(t, one, "the stale worker", time.Second)
	at := time.Now()
	fresh := leaseOne(t, other, "the fresh worker", time.Minute)
	t.Logf("a lease of 1s was given to another worker %v later", time.Since(at).Round(10*time.Millisecond))
	if fresh.GetId() != stale.GetId() || fresh.GetId() != submitted.GetId() || stale.GetAttempt() != 1 || fresh.GetAttempt() != 2 {
		t.Fatalf("submitted %s, leased as %s attempt %d, then as %s attempt %d", submitted.GetId(), stale.GetId(), stale.GetAttempt(), fresh.GetId(), fresh.GetAttempt())
	}

	for _, agent := range []*task.Client{one, other} {
		if _, err := agent.API().CompleteTask(t.Context(), &outriggerv1.CompleteTaskRequest{Lease: leaseOf(stale), Result: text("stale")}); status.Code(err) != codes.Aborted {
			t.Errorf("the stale worker's completion: %v, want ABORTED", err)
		}
		if _, err := agent.API().FailTask(t.Context(), &outriggerv1.FailTaskRequest{Lease: leaseOf(stale), Error: "stale"}); status.Code(err) != codes.Aborted {
			t.Errorf("the stale worker's failure: %v, want ABORTED", err)
		}
		answer, err := agent.API().RenewTasks(t.Context(), &outriggerv1.RenewTasksRequest{Leases: []*outriggerv1.TaskLease{leaseOf(stale), leaseOf(fresh)}})
		if err != nil {
			t.Fatal(err)
		}
		if l := answer.GetLeases(); len(l) != 2 || l[0].GetLeaseUntil() != nil || l[1].GetLeaseUntil() == nil {
			t.Errorf("renewals of the stale and the fresh lease: %v; want the fresh one's alone", l)
		}
	}
	if _, err := other.API().CompleteTask(t.Context(), &outriggerv1.CompleteTaskRequest{Lease: leaseOf(fresh), Result: text("fresh")}); err != nil {
		t.Errorf("the fresh worker's completion: %v", err)
	}

	ended := completed(t, one, []string{submitted.GetId()}, 10*time.Second)[0]
	if got := string(ended.GetResult().GetPayload().GetData()); got != "fresh" || ended.GetAttempts() != 2 {
		t.Errorf("the result is %q of attempt %d, want the fresh worker's", got, ended.GetAttempts())
	}
	if _, err := one.API().CompleteTask(t.Context(), &outriggerv1.CompleteTaskRequest{Lease: leaseOf(stale), Result: text("stale")}); status.Code(err) != codes.Aborted {
		t.Errorf("the stale worker's completion of a task that has ended: %v, want ABORTED", err)
	}
}

func TestAStaleWorkerIsRefusedByOneAgent(t *testing.T) {
	w := newWorld(t)
	a := configure(t, "the agent", w, block(w, sqlite("tasks.db")))
	a.start()
	staleWorker(t, a.dial(), a.dial())
}

func TestAStaleWorkerIsRefusedByTwoAgents(t *testing.T) {
	c, w := startPostgres(t), newWorld(t)
	tasks := block(w, onPostgres(c))
	first, second := configure(t, "the first agent", w, tasks), configure(t, "the second agent", w, tasks)
	first.start()
	second.start()
	staleWorker(t, first.dial(), second.dial())
}

// A worker's stream renews its leases as long as its agent lives. The agent is
// stopped for longer than a lease, another worker does the task, and what the first
// worker then says by its stream is refused.
func TestAWorkerWhoseAgentStoppedForLongerThanTheLeaseIsRefused(t *testing.T) {
	c, w := startPostgres(t), newWorld(t)
	tasks := block(w, onPostgres(c))
	first, second := configure(t, "the first agent", w, tasks), configure(t, "the second agent", w, tasks)
	first.start()
	second.start()
	one, other := first.dial(), second.dial()
	submitted, err := other.Submit(t.Context(), task.App("resize", "picture"), task.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := one.API().Work(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func(requests ...*outriggerv1.WorkRequest) {
		t.Helper()
		for _, r := range requests {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	say(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Open{Open: &outriggerv1.OpenWork{Kinds: []string{"resize"}, Worker: "the first worker"}}},
		&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_More{More: 1}})
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	stale := answer.GetTask()
	// The stream renews: nobody else gets it for longer than a lease lasts.
	none, err := other.API().LeaseTasks(t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize"}, Wait: durationpb.New(4 * time.Second)})
	if err != nil || len(none.GetTasks()) > 0 {
		t.Fatalf("while the stream renews, another worker leased %v, %v", none.GetTasks(), err)
	}

	first.signal(syscall.SIGSTOP)
	fresh := leaseOne(t, other, "the second worker", time.Minute)
	if fresh.GetId() != stale.GetId() || fresh.GetAttempt() != stale.GetAttempt()+1 {
		t.Fatalf("leased %s attempt %d, then %s attempt %d", stale.GetId(), stale.GetAttempt(), fresh.GetId(), fresh.GetAttempt())
	}
	say(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Complete{Complete: &outriggerv1.CompleteTaskRequest{Lease: leaseOf(stale), Result: text("stale")}}})
	first.signal(syscall.SIGCONT)

	var heard []string
	for !slices.Contains(heard, "refused: "+codes.Aborted.String()) {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatalf("the stream ended with %v after %v; want the completion refused", err, heard)
		}
		switch e := answer.GetEnded(); {
		case e != nil:
			if e.GetRefused() == nil {
				t.Fatalf("the late completion was taken: %v", answer)
			}
			heard = append(heard, "refused: "+codes.Code(e.GetRefused().GetCode()).String())
		case answer.GetLost() != nil:
			heard = append(heard, "lost")
		}
	}
	if _, err := other.API().CompleteTask(t.Context(), &outriggerv1.CompleteTaskRequest{Lease: leaseOf(fresh), Result: text("fresh")}); err != nil {
		t.Errorf("the second worker's completion: %v", err)
	}
	ended := completed(t, other, []string{submitted.GetId()}, 10*time.Second)[0]
	if got := string(ended.GetResult().GetPayload().GetData()); got != "fresh" {
		t.Errorf("the result is %q, want the second worker's", got)
	}
}

// Two agents share the work, each piece done once while nothing fails.
func TestTwoAgentsShareWorkWithoutDoingAnyTwice(t *testing.T) {
	c, w := startPostgres(t), newWorld(t)
	tasks := block(w, onPostgres(c))
	first, second := configure(t, "the first agent", w, tasks), configure(t, "the second agent", w, tasks)
	first.start()
	second.start()
	one, other := first.dial(), second.dial()
	startWorker(t, w, one, "the first worker")
	startWorker(t, w, other, "the second worker")
	var submitting sync.WaitGroup
	for i, client := range []*task.Client{one, other} {
		l := &load{w: w, client: client, most: 3000, odd: make(map[string]int)}
		l.ending, l.end = context.WithCancel(context.Background())
		t.Cleanup(l.end)
		submitting.Go(func() {
			for n := range some(100, 1000) {
				l.submit(fmt.Sprintf("http-%d-%d", i, n), w.httpWork)
				l.submit(fmt.Sprintf("resize-%d-%d", i, n), func(work string) *outriggerv1.TaskSpec { return task.App("resize", work) })
			}
			l.chain(fmt.Sprintf("chain-%d", i))
		})
	}
	submitting.Wait()

	w.settle(t, other, time.Minute)

	if b := w.audit(); b.repetitions > 0 {
		t.Errorf("%d effects came twice, and nothing failed", b.repetitions)
	}
	workers := make(map[string]int)
	for token := ""; ; {
		page, err := one.API().ListTasks(t.Context(), &outriggerv1.ListTasksRequest{Kind: "http", PageSize: 1000, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, done := range page.GetTasks() {
			workers[done.GetWorker()]++
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	t.Logf("http tasks by who did them: %v", workers)
	if len(workers) != 2 {
		t.Errorf("http tasks were done by %v, want both agents", workers)
	}
}
