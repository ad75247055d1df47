package store

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

// Bounds of one transaction, past which no more writes join it.
const (
	maxBatchRows  = 512
	maxBatchBytes = 8 << 20
)

// writer commits what arrives together in one transaction: a disk syncs as long for
// one write as for a hundred. While a commit is under way the next ones gather; one
// that comes alone is committed at once.
type writer struct {
	store *Store
	ops   chan *op
}

// op is one write.
type op struct {
	// Either of: jobs to insert, an attempt to finish, anything else.
	insert []New
	finish *finishing
	other  func(ctx context.Context, tx *txn) error
	bytes  int

	ctx context.Context // the caller's

	// After a commit:
	inserted []Inserted
	moved    []Moved
	rings    []ring
	err      error
	done     chan struct{}
}

// rows is how many jobs it changes, about.
func (o *op) rows() int { return max(len(o.insert), 1) }

// ring is a queue that has something to fetch at a time.
type ring struct {
	queue string
	at    time.Time
}

func newWriter(s *Store) *writer { return &writer{store: s, ops: make(chan *op, maxBatchRows)} }

// errClosed is what writes get once the store is closed.
var errClosed = &Unavailable{Why: "the task store is closed"}

// do has an op committed, and returns once it is, or isn't.
func (w *writer) do(ctx context.Context, o *op) error {
	if why := w.store.health.refusal(); why != nil {
		return why
	}
	o.ctx, o.done = ctx, make(chan struct{})
	select {
	case w.ops <- o:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.store.stopped.Done():
		return errClosed
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
		return ctx.Err() // it may still be committed
	case <-w.store.stopped.Done():
		select {
		case <-o.done:
			return o.err
		default:
			return errClosed
		}
	}
}

// change has a function run in a transaction and returns what came of it; nothing
// where nobody waited for it to end.
func change[T any](ctx context.Context, w *writer, do func(ctx context.Context, tx *txn) (T, error)) (T, error) {
	var result, nothing T
	o := &op{other: func(ctx context.Context, tx *txn) (err error) {
		result, err = do(ctx, tx)
		return err
	}}
	err := w.do(ctx, o)
	if !o.answered() {
		return nothing, err
	}
	return result, err
}

// answered reports whether an op is through.
func (o *op) answered() bool {
	select {
	case <-o.done:
		return true
	default: // also of one that was refused at the door
		return false
	}
}

func (w *writer) run(ctx context.Context) {
	for {
		var batch []*op
		select {
		case <-ctx.Done():
			return
		case first := <-w.ops:
			batch = append(batch, first)
		}
		rows, bytes := batch[0].rows(), batch[0].bytes
	gather:
		for rows < maxBatchRows && bytes < maxBatchBytes {
			select {
			case next := <-w.ops:
				batch = append(batch, next)
				rows, bytes = rows+next.rows(), bytes+next.bytes
			default:
				break gather
			}
		}
		batch = slices.DeleteFunc(batch, func(o *op) bool {
			if o.err = o.ctx.Err(); o.err != nil {
				close(o.done) // nobody waits for it any more
			}
			return o.err != nil
		})
		if len(batch) > 0 {
			w.commit(batch)
		}
	}
}

// commit commits a batch. Where one op's failure took the others with it, each is
// tried alone.
func (w *writer) commit(batch []*op) {
	err := w.insist(batch)
	if err != nil && len(batch) > 1 && !isUnavailable(err) {
		for _, o := range batch {
			o.reset()
			if err := w.insist([]*op{o}); err != nil {
				o.err = err
			}
			w.answer(o)
		}
		return
	}
	for _, o := range batch {
		if err != nil && o.err == nil {
			o.err = err
		}
		w.answer(o)
	}
}

// conflicts is how often a transaction is tried that met another agent's.
const conflicts = 5

// insist commits a batch, again where it met another transaction halfway.
func (w *writer) insist(batch []*op) error {
	for try := 1; ; try++ {
		err := w.try(batch)
		if !isConflict(err) || try == conflicts {
			return err
		}
		for _, o := range batch {
			o.reset()
		}
	}
}

func (o *op) reset() { o.inserted, o.moved, o.rings, o.err = nil, nil, nil, nil }

// answer tells what came of an op.
func (w *writer) answer(o *op) {
	if o.err == nil {
		for _, m := range o.moved {
			if m.CancelRequested {
				w.store.cancelRun(m.ID)
			}
			w.store.options.Moved(m)
		}
		for _, r := range o.rings {
			w.store.alarms.at(r.queue, r.at)
		}
	}
	close(o.done)
}

// commitTimeout bounds one transaction: a database that does not answer is one that
// can't be used.
const commitTimeout = 10 * time.Second

// try commits a batch in one transaction. The error is the transaction's; an op's
// own stands in the op.
func (w *writer) try(batch []*op) (err error) {
	s := w.store
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	committing := false
	defer func() {
		err = s.health.note(explained(err))
		var u *Unavailable
		if committing && errors.As(err, &u) {
			unsure := *u
			unsure.Unknown = true
			err = &unsure
		}
	}()
	tx, err := s.exec.Begin(ctx)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if !committed {
			rollback, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = tx.Rollback(rollback) // the error that led here is told
		}
	}()
	t := &txn{store: s, tx: tx}
	if err := t.insertAll(ctx, batch); err != nil {
		return err
	}
	if err := t.finishAll(ctx, batch); err != nil {
		return err
	}
	for _, o := range batch {
		if err := t.runOther(ctx, o); err != nil {
			return err
		}
	}
	queues := make(map[string]bool)
	for _, o := range batch {
		if o.err != nil {
			continue
		}
		for _, r := range o.rings {
			queues[r.queue] = true
		}
	}
	if err := s.notify(ctx, tx, queues); err != nil {
		return err
	}
	committing = s.options.Postgres != nil // SQLite's are done or not
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	committed = true
	s.stats.commits.Add(1)
	s.stats.writes.Add(uint64(len(batch)))
	s.waiting.add(t.waiting)
	return nil
}

// notify tells other agents of queues that have something to fetch.
func (s *Store) notify(ctx context.Context, tx riverdriver.Executor, queues map[string]bool) error {
	if s.options.SQLite != nil || len(queues) == 0 {
		return nil
	}
	payloads := make([]string, 0, len(queues))
	for queue := range queues {
		payloads = append(payloads, payload(insertPayload{queue}))
	}
	return tx.NotifyMany(ctx, &riverdriver.NotifyManyParams{Topic: topicInsert, Payload: payloads})
}

// runOther runs an op's own function inside a savepoint.
func (t *txn) runOther(ctx context.Context, o *op) error {
	if o.other == nil {
		return nil
	}
	sub, err := t.tx.Begin(ctx)
	if err != nil {
		return err
	}
	inner := &txn{store: t.store, tx: sub}
	if err = o.other(ctx, inner); err == nil {
		if err = sub.Commit(ctx); err != nil {
			return err
		}
		o.moved, o.rings = inner.moved, inner.rings
		t.addWaiting(inner.waiting)
		return nil
	}
	if isConflict(err) {
		return err // the whole transaction is lost
	}
	if e := sub.Rollback(ctx); e != nil {
		return errors.Join(err, e)
	}
	o.err = explained(err)
	return nil
}

// counters are the store's figures.
type counters struct {
	commits, writes, fetches, fetched, lost, errors atomic.Uint64
}

// Stats are the store's figures. They only grow.
type Stats struct {
	// Commits of inserts and endings, and how many of those there were in them.
	Commits, Writes uint64
	// Fetches that found something, and how many jobs they found.
	Fetches, Fetched uint64
	// Lost endings came from attempts that were over.
	Lost uint64
	// Errors of the database.
	Errors uint64
}

// Stats reads the figures.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{c.commits.Load(), c.writes.Load(), c.fetches.Load(), c.fetched.Load(), c.lost.Load(), c.errors.Load()}
}
