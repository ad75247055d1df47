package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newTaskList() *cobra.Command {
	var r remote
	var states []string
	var request outriggerv1.ListTasksRequest
	c := r.flags(&cobra.Command{
		Use:   "list",
		Short: "List tasks, the newest first",
		Example: `  outrigger task list
  outrigger task list --state FAILED              # the dead letters
  outrigger task list --state AVAILABLE,RETRYABLE --kind email -o json`,
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if request.States, err = taskStates(states); err != nil {
				return err
			}
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				page, err := outriggerv1.NewTaskServiceClient(agent).ListTasks(ctx, &request)
				if err != nil {
					return err
				}
				return r.printTasks(c, page)
			})
		},
	})
	f := c.Flags()
	f.StringSliceVar(&states, "state", nil, "only those of `STATE`: SCHEDULED, AVAILABLE, RUNNING, RETRYABLE, COMPLETED, FAILED, CANCELLED; several with commas")
	f.StringVar(&request.Kind, "kind", "", "only those of `KIND`")
	f.StringVar(&request.Queue, "queue", "", "only those of `QUEUE`")
	f.StringVar(&request.Tag, "tag", "", "only those with `TAG`")
	f.StringVar(&request.Parent, "parent", "", "only those of a chain or a schedule, by its `ID`")
	f.Int32Var(&request.PageSize, "page-size", 100, "at most `N`, 1 to 1000")
	f.StringVar(&request.PageToken, "page-token", "", "go on after a page: the `TOKEN` that it ended with")
	f.BoolVar(&request.ShowPayload, "show-payload", false, "with -o json: what they contain and what came of them, too")
	return c
}

// taskStates reads states from the command line.
func taskStates(names []string) ([]outriggerv1.TaskState, error) {
	var states []outriggerv1.TaskState
	for _, name := range names {
		n, known := outriggerv1.TaskState_value[strings.ToUpper(name)]
		if !known || n == 0 {
			return nil, usageError{fmt.Errorf("--state %q: want SCHEDULED, AVAILABLE, RUNNING, RETRYABLE, COMPLETED, FAILED or CANCELLED", name)}
		}
		states = append(states, outriggerv1.TaskState(n))
	}
	return states, nil
}

func (r *remote) printTasks(c *cobra.Command, page *outriggerv1.ListTasksResponse) error {
	w := c.OutOrStdout()
	if r.output == outputJSON {
		return printMessage(w, page)
	}
	now := time.Now()
	t := newTable("ID", "KIND", "STATE", "QUEUE", ">ATTEMPTS", ">AGE", "REASON")
	for _, task := range page.GetTasks() {
		t.add(task.GetId(), task.GetKind(), taskState(task), task.GetQueue(), taskAttempts(task), elapsed(now.Sub(task.GetSubmittedAt().AsTime())), oneReason(task))
	}
	t.print(w, coloursOf(w))
	switch {
	case page.GetNextPageToken() != "":
		fmt.Fprintf(w, "more: --page-token %s\n", page.GetNextPageToken())
	case len(page.GetTasks()) == 0:
		fmt.Fprintln(w, "no tasks")
	}
	return nil
}

func newTaskQueues() *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     "queues",
		Short:   "List the queues and what waits in them",
		Example: "  outrigger task queues",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				list, err := outriggerv1.NewTaskServiceClient(agent).ListQueues(ctx, &outriggerv1.ListQueuesRequest{})
				if err != nil {
					return err
				}
				return r.printQueues(c, list)
			})
		},
	})
}

func newTaskQueueMove(verb, short string, move func(context.Context, outriggerv1.TaskServiceClient, string) (*outriggerv1.TaskQueue, error)) *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:     verb + " QUEUE",
		Short:   short,
		Example: "  outrigger task " + verb + " default",
		Args:    exactly(1, "the name of one QUEUE, as `outrigger task queues` shows it"),
		RunE: func(c *cobra.Command, args []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				queue, err := move(ctx, outriggerv1.NewTaskServiceClient(agent), args[0])
				if err != nil {
					return err
				}
				return r.printQueues(c, &outriggerv1.ListQueuesResponse{Queues: []*outriggerv1.TaskQueue{queue}})
			})
		},
	})
}

func (r *remote) printQueues(c *cobra.Command, list *outriggerv1.ListQueuesResponse) error {
	w := c.OutOrStdout()
	if r.output == outputJSON {
		return printMessage(w, list)
	}
	now := time.Now()
	t := newTable("QUEUE", "STATE", ">WAITING", ">OLDEST", ">SCHEDULED", ">RETRYABLE", ">RUNNING", ">FAILED", ">CAPACITY", "WORKERS")
	for _, q := range list.GetQueues() {
		state, oldest, workers := cell{"RUNS", good}, "–", "apps"
		if q.GetPaused() {
			state = cell{"PAUSED", warning}
		}
		if q.GetOldestAt() != nil {
			oldest = elapsed(now.Sub(q.GetOldestAt().AsTime()))
		}
		if q.GetWorkers() > 0 {
			workers = fmt.Sprint(q.GetWorkers())
		}
		t.add(q.GetName(), state, count(q.GetAvailable()), oldest, count(q.GetScheduled()), count(q.GetRetryable()), count(q.GetRunning()), count(q.GetFailed()), count(q.GetCapacity()), workers)
	}
	t.print(w, coloursOf(w))
	if why := list.GetProblem(); why != "" {
		fmt.Fprintf(w, "nothing is accepted or started now: %s\n", why)
	}
	return nil
}
