package tasks

import (
	"context"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

type chainStart struct{ jobs []store.New }

func (c *chainStart) insert(ctx context.Context, tx store.Tx, parent *store.Job) error { return nil }

func (e *Executor) beginChain(spec *outriggerv1.TaskSpec, id int64, now time.Time, facts *store.Facts, runAt time.Time) (*chainStart, error) {
	return &chainStart{}, nil
}
func (e *Executor) stepEnded(ctx context.Context, tx store.Tx, j *store.Job, p plan, result *outriggerv1.TaskResult) error {
	return nil
}
func (e *Executor) stepOf(j *store.Job, step string) (ended bool, output *outriggerv1.Payload, err error) {
	return false, nil, nil
}
func (e *Executor) showSteps(j *store.Job) []*outriggerv1.TaskStep                 { return nil }
func (e *Executor) cancelChain(ctx context.Context, kept Store, id int64) error    { return nil }
func (e *Executor) retryChain(ctx context.Context, kept Store, j *store.Job) error { return nil }
func (e *Executor) chainOverdue(ctx context.Context, tx store.Tx, id int64, why string) error {
	return nil
}
func (e *Executor) ended(m store.Moved) {}
