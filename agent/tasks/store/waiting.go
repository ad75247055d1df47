package store

import (
	"context"
	"sync"
)

// waiting counts the jobs that wait, by queue.
type waiting struct {
	mu sync.Mutex
	n  map[string]int
}

// add changes the counts by what a commit changed.
func (w *waiting) add(more map[string]int) {
	if len(more) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == nil {
		w.n = make(map[string]int)
	}
	for queue, n := range more {
		w.n[queue] += n
	}
}

func (w *waiting) replace(n map[string]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n = n
}

// Waiting returns how many jobs of a queue wait, now or for their time: exactly for
// SQLite; for PostgreSQL as of some seconds ago and with what this agent did since.
func (s *Store) Waiting(queue string) int {
	s.waiting.mu.Lock()
	defer s.waiting.mu.Unlock()
	return max(s.waiting.n[queue], 0)
}

// count reads the counts from the database.
func (s *Store) count(ctx context.Context) error {
	rows, err := s.read.QueryContext(ctx, "SELECT queue, count(*) FROM river_job WHERE state IN ('available', 'scheduled', 'retryable') GROUP BY queue")
	if err != nil {
		return err
	}
	defer rows.Close()
	counts := make(map[string]int)
	for rows.Next() {
		var queue string
		var n int
		if err := rows.Scan(&queue, &n); err != nil {
			return err
		}
		counts[queue] = n
	}
	if err := rows.Err(); err != nil {
		return err
	}
	s.waiting.replace(counts)
	return nil
}
