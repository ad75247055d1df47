package store

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// defaultLimit is how many jobs a list has that says nothing.
const defaultLimit = 100

// Get returns a job as a whole.
func (s *Store) Get(ctx context.Context, id int64) (Job, error) {
	jobs, err := s.query(ctx, "river_job WHERE id = $1", []any{id}, true)
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
	jobs, err := s.query(ctx, "river_job WHERE unique_key = $1 ORDER BY id DESC LIMIT 1", []any{uniqueKey(unique)}, true)
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
	jobs, err := s.query(ctx, "river_job WHERE finalized_at IS NULL AND "+s.dialect.deadline()+" < $1 AND state <> 'running' ORDER BY "+s.dialect.deadline()+" LIMIT $2", []any{latest, limit}, false)
	return slices.DeleteFunc(jobs, func(j Job) bool { return !j.Facts.Deadline.Before(now) }), err
}

// List returns jobs, the newest first.
func (s *Store) List(ctx context.Context, f Filter) ([]Job, error) {
	if !s.health.opened.Load() {
		return nil, s.health.refusal()
	}
	by, err := s.rarest(ctx, &f)
	if err != nil {
		return nil, explained(err)
	}
	var where []string
	var args []any
	add := func(what byFilter, condition string, values ...any) {
		if by != what && by != byNothing {
			condition = s.dialect.unindexed(condition)
		}
		places := make([]string, len(values))
		for i, v := range values {
			args = append(args, v)
			places[i] = place(len(args))
		}
		where = append(where, strings.ReplaceAll(condition, "?", strings.Join(places, ", ")))
	}
	from := "river_job"
	if f.Tag != "" {
		from = s.dialect.tagged()
		add(byTag, "tag = ?", f.Tag)
	}
	if len(f.States) > 0 {
		add(byState, "state IN (?)", texts(f.States)...)
	}
	if f.Kind != "" {
		add(byKind, "kind = ?", f.Kind)
	}
	if f.Queue != "" {
		add(byQueue, "queue = ?", f.Queue)
	}
	if f.Parent != 0 {
		add(byParent, s.dialect.parent()+" = ?", f.Parent)
	}
	order := "id"
	if f.Tag != "" {
		order = "job_id"
	}
	if f.After != 0 {
		add(by, order+" < ?", f.After)
	}
	text := ""
	if len(where) > 0 {
		text = " WHERE " + strings.Join(where, " AND ")
	}
	limit := f.Limit
	if limit == 0 {
		limit = defaultLimit
	}
	args = append(args, limit)
	return s.query(ctx, from+text+" ORDER BY "+order+" DESC LIMIT "+place(len(args)), args, f.Payload)
}

func texts(states []State) []any {
	all := make([]any, len(states))
	for i, s := range states {
		all[i] = string(s)
	}
	return all
}

// byFilter is the filter of a list that finds the jobs; the others are looked at.
type byFilter int

const (
	byNothing byFilter = iota // there is one filter at most
	byTag
	byParent
	byState
	byKind
	byQueue
)

// rare is how many jobs are few enough to be looked at one by one.
const rare = 2000

// rarest chooses among several filters the one that finds few jobs: the databases
// know too little of it, or nothing.
func (s *Store) rarest(ctx context.Context, f *Filter) (byFilter, error) {
	type choice struct {
		by    byFilter
		where string
		args  []any
	}
	var choices []choice
	if len(f.States) > 0 {
		choices = append(choices, choice{byState, "state IN (?)", texts(f.States)})
	}
	if f.Kind != "" {
		choices = append(choices, choice{byKind, "kind = ?", []any{f.Kind}})
	}
	if f.Queue != "" {
		choices = append(choices, choice{byQueue, "queue = ?", []any{f.Queue}})
	}
	switch {
	case f.Tag != "":
		return byTag, nil
	case f.Parent != 0:
		return byParent, nil
	case len(choices) < 2:
		return byNothing, nil
	}
	best, fewest := byNothing, rare
	for _, c := range choices {
		places := make([]string, len(c.args))
		for i := range c.args {
			places[i] = place(i + 1)
		}
		var n int
		query := "SELECT count(*) FROM (SELECT 1 FROM river_job WHERE " + strings.ReplaceAll(c.where, "?", strings.Join(places, ", ")) + " LIMIT " + strconv.Itoa(rare) + ") AS found"
		if err := s.read.QueryRowContext(ctx, query, c.args...).Scan(&n); err != nil {
			return byNothing, err
		}
		if n < fewest {
			best, fewest = c.by, n
		}
	}
	return best, nil
}

func (s *Store) query(ctx context.Context, rest string, args []any, whole bool) ([]Job, error) {
	if !s.health.opened.Load() {
		return nil, s.health.refusal()
	}
	rows, err := s.read.QueryContext(ctx, "SELECT "+s.dialect.columns(whole)+" FROM "+rest, args...)
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
	where = append(where, "state IN ("+strings.Join(places, ", ")+")")
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
	return change(ctx, s.writer, func(ctx context.Context, tx *txn) (int, error) {
		ids, err := s.idsOf(ctx, tx.tx, query, args...)
		if err != nil || len(ids) == 0 {
			return 0, err
		}
		return len(ids), tx.tx.Exec(ctx, "DELETE FROM river_job WHERE "+s.dialect.among("id", "$1"), jsonIDs(ids))
	})
}
