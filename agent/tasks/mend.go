package tasks

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/chain"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

// Tasks of steps may end without their chain being told: the store itself gives up
// a task whose last lease lapsed. Such ends are told here, at once where this
// process sees them, and else by looking through the chains that are under way.

const (
	// mendMost bounds the ends that wait to be told; looking through finds the rest.
	mendMost = 1000
	// sweepPage is how many chains are looked at in a round, and sweepEvery how long
	// after all were looked at the first is again.
	sweepPage  = 20
	sweepEvery = 30 * time.Second
)

// untold are ended tasks of steps whose chains may not know. The zero value is
// ready for use.
type untold struct {
	mu  sync.Mutex
	ids []int64
}

func (u *untold) add(id int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.ids) < mendMost {
		u.ids = append(u.ids, id)
	}
}

func (u *untold) take() []int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	ids := u.ids
	u.ids = nil
	return ids
}

// ended notes an end that the store may have made by itself.
func (e *Executor) ended(m store.Moved) {
	if m.Parent != 0 && (m.State == store.Discarded || m.State == store.Cancelled) {
		e.untold.add(m.ID)
	}
}

// mend tells chains of ends that they may not know of.
func (e *Executor) mend(ctx context.Context, kept Store) error {
	for _, id := range e.untold.take() {
		if err := e.tellEnd(ctx, kept, id); err != nil {
			return err
		}
	}
	return nil
}

// tellEnd tells a chain how a step's task ended; one that knows is not changed.
func (e *Executor) tellEnd(ctx context.Context, kept Store, id int64) error {
	j, err := kept.Get(ctx, id)
	if err != nil || j.Facts.Step == "" || !hasEnded(j.State) {
		return ignore(err, store.ErrNotFound)
	}
	known, err := e.knows(ctx, kept, &j)
	if err != nil || known {
		return err
	}
	return e.toldLate(ctx, kept, &j)
}

// toldLate tells a chain how a step's task ended some time ago.
func (e *Executor) toldLate(ctx context.Context, kept Store, j *store.Job) error {
	p := plan{as: Done}
	result, err := e.resultOf(j)
	switch {
	case j.State == store.Cancelled:
		p = stopped(cancelledWhy)
	case j.State == store.Discarded:
		p = giveUp(j.Note)
	case err != nil:
		p = giveUp(err.Error())
	}
	var end *chainEnd
	err = kept.Update(ctx, func(ctx context.Context, tx store.Tx) (err error) {
		end, err = e.stepEnded(ctx, tx, j, p, result)
		return err
	})
	if err == nil {
		e.chainEnded(end)
	}
	return err
}

// knows reports whether the chain knows that a step's task has ended, or no longer
// has to.
func (e *Executor) knows(ctx context.Context, kept Store, j *store.Job) (bool, error) {
	parent, err := kept.Get(ctx, j.Facts.Parent)
	if err != nil || parent.State != store.Pending {
		return true, ignore(err, store.ErrNotFound)
	}
	at, err := e.progressOf(&parent)
	if err != nil {
		return false, nil // telling it ends the chain
	}
	for _, waits := range waitsFor(&at) {
		if waits.task == j.ID {
			return false, nil
		}
	}
	return true, nil
}

// awaited is a task whose end a chain waits for.
type awaited struct {
	step string
	undo bool
	task int64
}

func waitsFor(at *chainProgress) (all []awaited) {
	for _, name := range at.Names {
		s := at.State.Steps[name]
		switch {
		case s == nil:
		case s.Status == chain.StatusStarted:
			all = append(all, awaited{name, false, at.Tasks[name]})
		case s.Status == chain.StatusCompensating:
			all = append(all, awaited{name, true, at.Undo[name]})
		}
	}
	return all
}

// sweep looks at some of the chains under way, those after where it left off.
func (e *Executor) sweep(ctx context.Context, kept Store) error {
	now := e.now()
	if now.Before(e.nextSweep) {
		return nil
	}
	chains, err := kept.List(ctx, store.Filter{States: []store.State{store.Pending}, Kind: KindChain, After: e.swept, Limit: sweepPage})
	if err != nil {
		return err
	}
	for i := range chains {
		if err := e.lookAt(ctx, kept, chains[i].ID); err != nil {
			return err
		}
	}
	if len(chains) < sweepPage {
		e.swept, e.nextSweep = 0, now.Add(sweepEvery)
		return nil
	}
	e.swept = chains[len(chains)-1].ID
	return nil
}

// lookAt tells a chain of the tasks that it waits for and that have ended, or are
// gone.
func (e *Executor) lookAt(ctx context.Context, kept Store, id int64) error {
	parent, err := kept.Get(ctx, id)
	if err != nil || parent.State != store.Pending {
		return ignore(err, store.ErrNotFound)
	}
	at, err := e.progressOf(&parent)
	if err != nil {
		return nil // nothing can be said of it; the end of a step will end it
	}
	for _, waits := range waitsFor(&at) {
		err := e.tellEnd(ctx, kept, waits.task)
		if err != nil {
			return err
		}
		if _, err := kept.Get(ctx, waits.task); errors.Is(err, store.ErrNotFound) {
			gone := &store.Job{ID: waits.task, State: store.Discarded, Note: "its task is gone", Facts: store.Facts{Parent: id, Step: waits.step, Undo: waits.undo}}
			if err := e.toldLate(ctx, kept, gone); err != nil {
				return err
			}
		}
	}
	return nil
}
