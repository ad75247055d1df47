package tasks

import (
	"context"
	"fmt"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// ListQueues shows the queues.
func (e *Executor) ListQueues(ctx context.Context, _ *outriggerv1.ListQueuesRequest) (*outriggerv1.ListQueuesResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	queues, err := e.queues(ctx, kept, e.settings.Load().queueNames())
	if err != nil {
		return nil, err
	}
	return &outriggerv1.ListQueuesResponse{Queues: queues, Problem: kept.Problem()}, nil
}

func (e *Executor) queues(ctx context.Context, kept Store, names []string) ([]*outriggerv1.TaskQueue, error) {
	queues, err := kept.Queues(ctx, names)
	if err != nil {
		return nil, asStatus(err)
	}
	s := e.settings.Load()
	var all []*outriggerv1.TaskQueue
	for _, q := range queues {
		capacity, _ := s.capacity(q.Name)
		all = append(all, &outriggerv1.TaskQueue{
			Name: q.Name, Paused: q.Paused, Available: q.Available, Scheduled: q.Scheduled, Retryable: q.Retryable, Running: q.Running, Failed: q.Discarded,
			Capacity: uint64(capacity), Workers: uint32(s.Queues[q.Name].Workers), OldestAt: timeOf(q.Oldest),
		})
	}
	return all, nil
}

// PauseQueue stops tasks of a queue from being started.
func (e *Executor) PauseQueue(ctx context.Context, r *outriggerv1.PauseQueueRequest) (*outriggerv1.PauseQueueResponse, error) {
	q, err := e.move(ctx, r.GetName(), Store.Pause)
	if err != nil {
		return nil, err
	}
	return &outriggerv1.PauseQueueResponse{Queue: q}, nil
}

// ResumeQueue lets them be started again.
func (e *Executor) ResumeQueue(ctx context.Context, r *outriggerv1.ResumeQueueRequest) (*outriggerv1.ResumeQueueResponse, error) {
	q, err := e.move(ctx, r.GetName(), Store.Resume)
	if err != nil {
		return nil, err
	}
	e.desk.arrived(r.GetName())
	return &outriggerv1.ResumeQueueResponse{Queue: q}, nil
}

func (e *Executor) move(ctx context.Context, name string, do func(Store, context.Context, string) error) (*outriggerv1.TaskQueue, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	s := e.settings.Load()
	if _, ok := s.capacity(name); !ok {
		return nil, invalid(&FieldError{"name", fmt.Sprintf("there is no queue %q; %s", name, known(s.queueNames()))})
	}
	if err := do(kept, ctx, name); err != nil {
		return nil, asStatus(err)
	}
	queues, err := e.queues(ctx, kept, []string{name})
	if err != nil || len(queues) == 0 {
		return nil, err
	}
	return queues[0], nil
}
