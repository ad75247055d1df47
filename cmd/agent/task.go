package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newTask() *cobra.Command {
	return group("task", "Have work done later, and see what became of it", "  outrigger task list --state FAILED",
		newTaskSubmit(),
		newTaskList(),
		newTaskGet(),
		newTaskMove("cancel", "End a task; one that runs is told to stop", func(ctx context.Context, c outriggerv1.TaskServiceClient, id string) (taskAnswer, error) {
			return c.CancelTask(ctx, &outriggerv1.CancelTaskRequest{Id: id})
		}),
		newTaskMove("retry", "Run a task again that failed or was cancelled, or now one that waits", func(ctx context.Context, c outriggerv1.TaskServiceClient, id string) (taskAnswer, error) {
			return c.RetryTask(ctx, &outriggerv1.RetryTaskRequest{Id: id})
		}),
		newTaskWatch(),
		newTaskPurge(),
		newTaskQueues(),
		newTaskQueueMove("pause", "Start no more tasks of a queue; it goes on accepting them", func(ctx context.Context, c outriggerv1.TaskServiceClient, name string) (*outriggerv1.TaskQueue, error) {
			answer, err := c.PauseQueue(ctx, &outriggerv1.PauseQueueRequest{Name: name})
			return answer.GetQueue(), err
		}),
		newTaskQueueMove("resume", "Start tasks of a queue again", func(ctx context.Context, c outriggerv1.TaskServiceClient, name string) (*outriggerv1.TaskQueue, error) {
			answer, err := c.ResumeQueue(ctx, &outriggerv1.ResumeQueueRequest{Name: name})
			return answer.GetQueue(), err
		}),
	)
}

// taskAnswer is an answer that shows one task.
type taskAnswer interface {
	proto.Message
	GetTask() *outriggerv1.Task
}

const oneTask = "the ID of one task, as `outrigger task list` shows it"

func newTaskGet() *cobra.Command {
	var r remote
	var payload bool
	c := r.flags(&cobra.Command{
		Use:   "get ID",
		Short: "Show a task: how far it is, and why each attempt failed",
		Example: `  outrigger task get 1jc9v2qv4x0zt
  outrigger task get 1jc9v2qv4x0zt --show-payload -o json`,
		Args: exactly(1, oneTask),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				answer, err := outriggerv1.NewTaskServiceClient(agent).GetTask(ctx, &outriggerv1.GetTaskRequest{Id: args[0], ShowPayload: payload})
				if err != nil {
					return err
				}
				return r.printTask(c, answer)
			})
		},
	})
	c.Flags().BoolVar(&payload, "show-payload", false, "show what it contains and what came of it, too")
	return c
}

func newTaskMove(verb, short string, move func(context.Context, outriggerv1.TaskServiceClient, string) (taskAnswer, error)) *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     verb + " ID",
		Short:   short,
		Example: "  outrigger task " + verb + " 1jc9v2qv4x0zt",
		Args:    exactly(1, oneTask),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				answer, err := move(ctx, outriggerv1.NewTaskServiceClient(agent), args[0])
				if err != nil {
					return err
				}
				return r.printTask(c, answer)
			})
		},
	})
}

func newTaskWatch() *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     "watch ID",
		Short:   "Show a task each time it changes, until it has ended",
		Example: "  outrigger task watch 1jc9v2qv4x0zt",
		Args:    exactly(1, oneTask),
		RunE: func(c *cobra.Command, args []string) error {
			return r.connect(c.Context(), func(ctx context.Context, agent *grpc.ClientConn) error {
				return r.watchTask(ctx, c.OutOrStdout(), agent, args[0])
			})
		},
	})
}

// watchTask prints a line for each change. It fails where the task did.
func (r *remote) watchTask(ctx context.Context, w io.Writer, agent *grpc.ClientConn, id string) error {
	stream, err := outriggerv1.NewTaskServiceClient(agent).WatchTask(ctx, &outriggerv1.WatchTaskRequest{Id: id})
	if err != nil {
		return err
	}
	var last *outriggerv1.Task
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		last = answer.GetTask()
		if r.output == outputJSON {
			if err := printMessageLine(w, answer); err != nil {
				return err
			}
			continue
		}
		t := &table{}
		t.add(cell{time.Now().Format("15:04:05"), faint}, last.GetId(), taskState(last), taskAttempts(last), oneReason(last))
		t.print(w, coloursOf(w))
	}
	if last.GetState() == outriggerv1.TaskState_FAILED {
		return errSaid
	}
	return nil
}

func newTaskPurge() *cobra.Command {
	var r remote
	var states []string
	var request outriggerv1.PurgeTasksRequest
	var olderThan time.Duration
	c := r.flags(&cobra.Command{
		Use:   "purge [ID]",
		Short: "Delete tasks that have ended",
		Example: `  outrigger task purge --state FAILED --kind email
  outrigger task purge --state COMPLETED --older-than 1h
  outrigger task purge 1jc9v2qv4x0zt`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if request.States, err = taskStates(states); err != nil {
				return err
			}
			switch {
			case len(args) == 1 && (len(states) > 0 || request.Kind != "" || request.Queue != "" || olderThan > 0):
				return usageError{fmt.Errorf("got an ID and which tasks; want one of the two")}
			case len(args) == 1:
				request.Id = args[0]
			case len(states) == 0:
				return usageError{fmt.Errorf("which tasks? Want an ID, or --state COMPLETED, FAILED or CANCELLED")}
			}
			if olderThan > 0 {
				request.EndedBefore = timestamppb.New(time.Now().Add(-olderThan))
			}
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				answer, err := outriggerv1.NewTaskServiceClient(agent).PurgeTasks(ctx, &request)
				if err != nil {
					return err
				}
				if r.output == outputJSON {
					return printMessage(c.OutOrStdout(), answer)
				}
				fmt.Fprintf(c.OutOrStdout(), "%s deleted\n", plural(answer.GetPurged(), "task"))
				return nil
			})
		},
	})
	c.Flags().StringSliceVar(&states, "state", nil, "those of `STATE`: COMPLETED, FAILED, CANCELLED; several with commas")
	c.Flags().StringVar(&request.Kind, "kind", "", "only those of `KIND`")
	c.Flags().StringVar(&request.Queue, "queue", "", "only those of `QUEUE`")
	c.Flags().DurationVar(&olderThan, "older-than", 0, "only those that ended so long ago")
	return c
}

// printTask prints one task.
func (r *remote) printTask(c *cobra.Command, answer taskAnswer) error {
	w := c.OutOrStdout()
	if r.output == outputJSON {
		return printMessage(w, answer)
	}
	task := answer.GetTask()
	colours := coloursOf(w)
	t := &table{}
	say := func(name string, value any) {
		if value != "" {
			t.add(cell{name, faint}, value)
		}
	}
	say("id", task.GetId())
	say("kind", task.GetKind())
	say("state", taskState(task))
	if task.GetCancelRequested() {
		say("", "somebody asked to cancel it")
	}
	if !neverTried(task) {
		say("attempts", taskAttempts(task))
	}
	if n := task.GetSnoozes(); n > 0 {
		say("put off", plural(int64(n), "time")+", without an attempt")
	}
	say("reason", task.GetError())
	say("queue", task.GetQueue())
	say("priority", fmt.Sprint(task.GetPriority()))
	say("tenant", task.GetTenant())
	say("tags", strings.Join(task.GetTags(), ", "))
	if task.GetParent() != "" {
		say("part of", strings.TrimSpace(task.GetParent()+" "+task.GetStep()))
	}
	say("worker", task.GetWorker())
	for _, at := range []struct {
		name string
		time *timestamppb.Timestamp
	}{{"submitted", task.GetSubmittedAt()}, {"to run", task.GetRunAt()}, {"started", task.GetStartedAt()}, {"ended", task.GetEndedAt()}, {"given up", task.GetDeadline()}} {
		if at.time != nil {
			say(at.name, at.time.AsTime().Local().Format("2006-01-02 15:04:05.000 MST"))
		}
	}
	if task.GetSpec() != nil {
		say("content", compact(task.GetSpec()))
	}
	if r := task.GetResult(); r != nil {
		say("result", resultOf(r))
	}
	t.print(w, colours)
	printSteps(w, task, colours)
	if len(task.GetFailures()) > 0 && !neverTried(task) {
		fmt.Fprintln(w)
		f := newTable(">ATTEMPT", "FAILED AT", "WHY")
		for _, failure := range task.GetFailures() {
			f.add(fmt.Sprint(failure.GetAttempt()), failure.GetAt().AsTime().Local().Format("2006-01-02 15:04:05"), failure.GetError())
		}
		f.print(w, colours)
	}
	return nil
}

func printSteps(w io.Writer, task *outriggerv1.Task, colours bool) {
	if len(task.GetSteps()) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := newTable("STEP", "STATE", "TASK", "COMPENSATION", "WHY")
	for _, s := range task.GetSteps() {
		state := cell{s.GetState(), plain}
		switch s.GetState() {
		case "DONE", "COMPENSATED":
			state.tone = good
		case "FAILED", "COMPENSATION_FAILED":
			state.tone = bad
		case "WAITING", "SKIPPED":
			state.tone = faint
		}
		t.add(s.GetName(), state, dash(s.GetTask()), dash(s.GetCompensation()), dash(s.GetError()))
	}
	t.print(w, colours)
}

// longest is how much of a payload a table shows.
const longest = 500

// compact writes what is set in a message in one line.
func compact(m proto.Message) string {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return err.Error()
	}
	return clipped(line.String())
}

// resultOf says what came of a task, as text where it is some.
func resultOf(r *outriggerv1.TaskResult) string {
	var says []string
	if r.GetHttpStatus() != 0 {
		says = append(says, fmt.Sprint("status ", r.GetHttpStatus()))
	}
	if r.GetMessageId() != "" {
		says = append(says, "Message-ID "+r.GetMessageId())
	}
	if data := r.GetPayload().GetData(); len(data) > 0 {
		text := string(data)
		if !utf8.Valid(data) || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) && !unicode.IsSpace(c) }) {
			text = plural(int64(len(data)), "byte")
		}
		if kind := r.GetPayload().GetContentType(); kind != "" {
			text = kind + ": " + text
		}
		says = append(says, text)
	}
	if len(says) == 0 {
		return "nothing"
	}
	return clipped(strings.Join(says, ", "))
}

func clipped(text string) string {
	if utf8.RuneCountInString(text) <= longest {
		return text
	}
	return string([]rune(text)[:longest]) + "… (all of it with -o json)"
}

func taskState(t *outriggerv1.Task) cell {
	tones := map[outriggerv1.TaskState]tone{
		outriggerv1.TaskState_COMPLETED: good, outriggerv1.TaskState_FAILED: bad,
		outriggerv1.TaskState_RETRYABLE: warning, outriggerv1.TaskState_CANCELLED: warning,
	}
	return cell{t.GetState().String(), tones[t.GetState()]}
}

func taskAttempts(t *outriggerv1.Task) string {
	if t.GetMaxAttempts() == 0 || neverTried(t) {
		return "–"
	}
	return fmt.Sprintf("%d of %d", t.GetAttempts(), t.GetMaxAttempts())
}

// neverTried reports whether a task is not tried itself: a chain's steps are, and a
// schedule's tasks.
func neverTried(t *outriggerv1.Task) bool {
	return t.GetKind() == "chain" || t.GetKind() == "schedule"
}

// oneReason says in a few words why a task is as it is.
func oneReason(t *outriggerv1.Task) string {
	waits := t.GetState() == outriggerv1.TaskState_SCHEDULED || t.GetState() == outriggerv1.TaskState_RETRYABLE
	if d := time.Until(t.GetRunAt().AsTime()); waits && t.GetRunAt() != nil && d > 0 {
		return strings.TrimSuffix("in "+elapsed(d.Round(time.Second))+": "+t.GetError(), ": ")
	}
	return dash(t.GetError())
}
