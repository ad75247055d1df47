package store

import (
	"context"
	"slices"
	"strings"
	"time"
)

// defaultLimit is how many jobs a list has that says nothing.
const defaultLimit = 100

// Get returns a job as a whole.
func (s *Store) Get(ctx context.Context, id int64) (Job, error) {
	jobs, err := s.query(ctx, "WHERE id = $1", []any{id}, true)
	if err == nil && len(jobs) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Job{}, err
	}
	return jobs[0], nil
}

// Find returns the job that a unique key names, the newest where it named others
// before. ErrNotFound: none.
func (s *Store) Find(ctx context.Context, unique []byte) (Job, error) {
	jobs, err := s.query(ctx, "WHERE unique_key = $1 ORDER BY id DESC LIMIT 1", []any{uniqueKey(unique)}, true)
	if err == nil && len(jobs) == 0 {
		err = ErrNotFound
	}
	if err != nil {
		return Job{}, err
	}
	return jobs[0], nil
}

// Overdue returns jobs, at most limit, that neither run nor have ended and whose
// Facts.Deadline lies before now.
func (s *Store) Overdue(ctx context.Context, now time.Time, limit int) ([]Job, error) {
	// Texts with and without a fraction of a second compare wrongly within it.
	latest := now.Add(time.Second).UTC().Format(time.RFC3339)
	jobs, err := s.query(ctx, "WHERE finalized_at IS NULL AND "+s.dialect.deadline()+" < $1 AND "+s.dialect.state()+" <> 'running' ORDER BY "+s.dialect.deadline()+" LIMIT $2", []any{latest, limit}, false)
	return slices.DeleteFunc(jobs, func(j Job) bool { return !j.Facts.Deadline.Before(now) }), err
}

// List returns jobs, the newest first.
func (s *Store) List(ctx context.Context, f Filter) ([]Job, error) {
	var where []string
	var args []any
	add := func(condition func(placeholder string) string, value any) {
		args = append(args, value)
		where = append(where, condition(place(len(args))))
	}
	equals := func(what string) func(string) string { return func(p string) string { return what + " = " + p } }
	if len(f.States) > 0 {
		var places []string
		for _, state := range f.States {
			args = append(args, string(state))
			places = append(places, place(len(args)))
		}
		where = append(where, s.dialect.state()+" IN ("+strings.Join(places, ", ")+")")
	}
	if f.Kind != "" {
		add(equals("kind"), f.Kind)
	}
	if f.Queue != "" {
		add(equals("queue"), f.Queue)
	}
	if f.Tag != "" {
		add(s.dialect.tagged, f.Tag)
	}
	if f.Parent != 0 {
		add(equals(s.dialect.parent()), f.Parent)
	}
	if f.After != 0 {
		add(func(p string) string { return "id < " + p }, f.After)
	}
	text := ""
	if len(where) > 0 {
		text = "WHERE " + strings.Join(where, " AND ")
	}
	limit := f.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	args = append(args, limit)
	return s.query(ctx, text+" ORDER BY id DESC LIMIT "+place(len(args)), args, f.Payload)
}

func (s *Store) query(ctx context.Context, rest string, args []any, whole bool) ([]Job, error) {
	if !s.health.opened.Load() {
		return nil, s.health.refusal()
	}
	rows, err := s.read.QueryContext(ctx, "SELECT "+s.dialect.columns(whole)+" FROM river_job "+rest, args...)
	if err != nil {
		return nil, explained(err)
	}
	defer rows.Close()
	var jobs []Job
	for rows.Next() {
		j, err := scanned(rows)
		if err != nil {
			return nil, explained(err)
		}
		jobs = append(jobs, j)
	}
	return jobs, explained(rows.Err())
}

// purgeBatch is how many jobs one transaction deletes.
const purgeBatch = 1000

// Purge deletes jobs that have ended, and says how many.
func (s *Store) Purge(ctx context.Context, f PurgeFilter) (int, error) {
	states := f.States
	if len(states) == 0 {
		states = []State{Done, Discarded, Cancelled}
	}
	var where, places []string
	var args []any
	for _, state := range states {
		if !state.ended() {
			return 0, ErrState
		}
		args = append(args, string(state))
		places = append(places, place(len(args)))
	}
	where = append(where, s.dialect.state()+" IN ("+strings.Join(places, ", ")+")")
	for _, c := range []struct {
		column string
		value  any
		given  bool
	}{{"id = ", f.ID, f.ID != 0}, {"kind = ", f.Kind, f.Kind != ""}, {"queue = ", f.Queue, f.Queue != ""}, {"finalized_at < ", s.dialect.time(f.EndedBefore), !f.EndedBefore.IsZero()}} {
		if c.given {
			args = append(args, c.value)
			where = append(where, c.column+place(len(args)))
		}
	}
	args = append(args, purgeBatch)
	query := "SELECT id FROM river_job WHERE " + strings.Join(where, " AND ") + " ORDER BY id LIMIT " + place(len(args))
	total := 0
	for {
		n, err := s.deleteSome(ctx, query, args)
		total += n
		if err != nil || n < purgeBatch {
			return total, err
		}
	}
}

// deleteSome deletes the jobs that a query finds.
func (s *Store) deleteSome(ctx context.Context, query string, args []any) (int, error) {
	n := 0
	err := s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) error {
		var text string
		if err := tx.tx.QueryRow(ctx, s.dialect.gather("id", query), args...).Scan(&text); err != nil {
			return err
		}
		n = strings.Count(text, "[") - 1
		if n == 0 {
			return nil
		}
		flat := strings.NewReplacer("[[", "[", "]]", "]", "], [", ",", "],[", ",").Replace(text)
		return tx.tx.Exec(ctx, "DELETE FROM river_job WHERE id IN "+s.dialect.idList("$1"), flat)
	}})
	return n, err
}
