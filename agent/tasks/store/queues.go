package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// queueCache keeps what Queues found: counting a million rows is not for every
// scrape.
type queueCache struct {
	mu    sync.Mutex
	at    time.Time
	took  time.Duration
	found map[string]Queue
	names string
}

// queuesKept is how old an answer of Queues may be, and queuesShare how much older
// than it took: a million rows take a tenth of a second.
const (
	queuesKept  = time.Second
	queuesShare = 20
)

// Queues returns how queues stand, as of a second ago where they are short, in the
// order of the names.
func (s *Store) Queues(ctx context.Context, names []string) ([]Queue, error) {
	if !s.health.opened.Load() {
		return nil, s.health.refusal()
	}
	c := &s.queues
	c.mu.Lock()
	defer c.mu.Unlock() // those who ask at the same time wait for one answer
	wanted := strings.Join(names, ",")
	if c.names != wanted || time.Since(c.at) > max(queuesKept, queuesShare*c.took) {
		begun := time.Now()
		found, err := s.countQueues(ctx, names)
		if err != nil {
			return nil, s.health.note(explained(err))
		}
		c.found, c.at, c.took, c.names = found, time.Now(), time.Since(begun), wanted
	}
	all := make([]Queue, len(names))
	for i, name := range names {
		all[i] = c.found[name]
		all[i].Name = name
	}
	return all, nil
}

func (s *Store) countQueues(ctx context.Context, names []string) (map[string]Queue, error) {
	found := make(map[string]Queue, len(names))
	rows, err := s.read.QueryContext(ctx, "SELECT queue, "+s.dialect.state()+", count(*) FROM river_job WHERE state IN ('available', 'scheduled', 'retryable', 'running', 'discarded') GROUP BY queue, state")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name, state string
		var n uint64
		if err := rows.Scan(&name, &state, &n); err != nil {
			return nil, err
		}
		q := found[name]
		switch State(state) {
		case Available:
			q.Available = n
		case Scheduled:
			q.Scheduled = n
		case Retryable:
			q.Retryable = n
		case Running:
			q.Running = n
		case Discarded:
			q.Discarded = n
		}
		found[name] = q
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, name := range names {
		q := found[name]
		if q.Available > 0 {
			if q.Oldest, err = s.oldest(ctx, name); err != nil {
				return nil, err
			}
		}
		found[name] = q
	}
	return found, s.readPaused(ctx, found)
}

// oldest returns when the job of a queue that waits longest was to run: the first of
// each priority is the oldest of it.
func (s *Store) oldest(ctx context.Context, queue string) (time.Time, error) {
	var first time.Time
	for priority := 1; priority <= 4; priority++ {
		rows, err := s.read.QueryContext(ctx, "SELECT scheduled_at FROM river_job WHERE state = 'available' AND queue = $1 AND priority = $2 ORDER BY scheduled_at LIMIT 1", queue, priority)
		if err != nil {
			return first, err
		}
		for rows.Next() {
			var at time.Time
			if err = rows.Scan(&at); err == nil && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
		if err = errors.Join(err, rows.Err(), rows.Close()); err != nil {
			return first, err
		}
	}
	if first.After(time.Now()) {
		return time.Time{}, nil
	}
	return first, nil
}

func (s *Store) readPaused(ctx context.Context, found map[string]Queue) error {
	rows, err := s.read.QueryContext(ctx, "SELECT name FROM river_queue WHERE paused_at IS NOT NULL")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		q := found[name]
		q.Paused = true
		found[name] = q
	}
	return rows.Err()
}

// paused reports whether a queue is.
func (s *Store) paused(ctx context.Context, e riverdriver.Executor, queue string) (bool, error) {
	q, err := e.QueueGet(ctx, &riverdriver.QueueGetParams{Name: queue})
	if errors.Is(err, rivertype.ErrNotFound) || isNoRows(err) {
		return false, nil
	}
	return err == nil && q.PausedAt != nil, err
}

// Pause stops jobs of a queue from being fetched, on every agent.
func (s *Store) Pause(ctx context.Context, queue string) error { return s.move(ctx, queue, true) }

// Resume lets them be fetched again.
func (s *Store) Resume(ctx context.Context, queue string) error { return s.move(ctx, queue, false) }

func (s *Store) move(ctx context.Context, queue string, pause bool) error {
	event := controlPayload{Action: "resume", Queue: queue}
	if pause {
		event.Action = "pause"
	}
	err := s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) error {
		now := time.Now()
		// A queue that only apps work has no row before.
		if _, err := tx.tx.QueueGet(ctx, &riverdriver.QueueGetParams{Name: queue}); errors.Is(err, rivertype.ErrNotFound) || isNoRows(err) {
			if _, err := tx.tx.QueueCreateOrSetUpdatedAt(ctx, &riverdriver.QueueCreateOrSetUpdatedAtParams{Name: queue, Now: &now}); err != nil {
				return err
			}
		}
		var err error
		if pause {
			err = tx.tx.QueuePause(ctx, &riverdriver.QueuePauseParams{Name: queue, Now: &now})
		} else {
			err = tx.tx.QueueResume(ctx, &riverdriver.QueueResumeParams{Name: queue, Now: &now})
		}
		if err != nil || s.options.SQLite != nil {
			return err
		}
		return tx.tx.NotifyMany(ctx, &riverdriver.NotifyManyParams{Topic: topicControl, Payload: []string{payload(event)}})
	}})
	if err != nil {
		return err
	}
	s.hub.publish(topicControl, payload(event))
	s.queues.mu.Lock()
	s.queues.at = time.Time{}
	s.queues.mu.Unlock()
	if !pause {
		s.ring(queue)
	}
	return nil
}

// keepQueues keeps River's cleaner from forgetting that queues are paused which no
// client of River runs.
func (s *Store) keepQueues(ctx context.Context) error {
	rows, err := s.read.QueryContext(ctx, "SELECT name FROM river_queue WHERE paused_at IS NOT NULL")
	if err != nil {
		return err
	}
	var names []string
	for rows.Next() {
		var name string
		if err = rows.Scan(&name); err != nil {
			break
		}
		names = append(names, name)
	}
	if err = errors.Join(err, rows.Err(), rows.Close()); err != nil || len(names) == 0 {
		return err
	}
	slices.Sort(names)
	return s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) error {
		now := time.Now()
		for _, name := range names {
			if _, err := tx.tx.QueueCreateOrSetUpdatedAt(ctx, &riverdriver.QueueCreateOrSetUpdatedAtParams{Name: name, Now: &now, UpdatedAt: &now}); err != nil {
				return err
			}
		}
		return nil
	}})
}
