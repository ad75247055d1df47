package store

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/riverqueue/river/rivertype"
)

// A job's body is the column args, {"b": base64}; the column metadata has what
// River keeps there and, under one letter each, facts, output, note and progress.
type argsColumn struct {
	Body []byte `json:"b,omitempty"`
}

type metadataColumn struct {
	Facts    *Facts  `json:"f,omitempty"`
	Output   *[]byte `json:"o,omitempty"`
	Note     *string `json:"n,omitempty"`
	Progress []byte  `json:"p,omitempty"`
	Snoozes  int     `json:"snoozes,omitempty"`
	// CancelAttemptedAt is River's mark of a job that somebody wants to end.
	CancelAttemptedAt json.RawMessage `json:"cancel_attempted_at,omitempty"`
}

// jobOf reads a row of River's.
func jobOf(r *rivertype.JobRow) (Job, error) {
	j := Job{
		ID: r.ID, Kind: r.Kind, Queue: r.Queue, Priority: r.Priority, State: State(r.State), Attempt: r.Attempt, MaxAttempts: r.MaxAttempts,
		RunAt: r.ScheduledAt, SubmittedAt: r.CreatedAt, Tags: r.Tags,
	}
	if r.AttemptedAt != nil {
		j.StartedAt = *r.AttemptedAt
	}
	if r.FinalizedAt != nil {
		j.EndedAt = *r.FinalizedAt
	}
	if n := len(r.AttemptedBy); n > 0 {
		j.Worker = r.AttemptedBy[n-1]
	}
	for _, e := range r.Errors {
		j.Failures = append(j.Failures, Failure{e.Attempt, e.At, e.Error})
	}
	var args argsColumn
	if err := json.Unmarshal(r.EncodedArgs, &args); err != nil {
		return j, fmt.Errorf("task %d: its arguments can't be read: %w", r.ID, err)
	}
	j.Body = args.Body
	var m metadataColumn
	if err := json.Unmarshal(r.Metadata, &m); err != nil {
		return j, fmt.Errorf("task %d: its metadata can't be read: %w", r.ID, err)
	}
	j.Snoozes, j.Progress, j.CancelRequested = m.Snoozes, m.Progress, len(m.CancelAttemptedAt) > 0
	j.countSnoozes()
	if m.Facts != nil {
		j.Facts = *m.Facts
	}
	if m.Output != nil {
		j.Output = *m.Output
	}
	if m.Note != nil {
		j.Note = *m.Note
	}
	j.CancelRequested = j.CancelRequested && j.EndedAt.IsZero()
	return j, nil
}

// scanned reads a row of dialect.columns.
func scanned(rows *sql.Rows) (Job, error) {
	var j Job
	var attempted, finalized sql.NullTime
	var workers, facts, tags, errors, body, progress string
	var output sql.NullString
	err := rows.Scan(&j.ID, &j.Kind, &j.Queue, &j.Priority, (*string)(&j.State), &j.Attempt, &j.MaxAttempts, &j.RunAt, &j.SubmittedAt, &attempted, &finalized,
		&workers, &facts, &tags, &j.Snoozes, &j.CancelRequested, &j.Note, &errors, &body, &output, &progress)
	if err != nil {
		return j, err
	}
	j.StartedAt, j.EndedAt = attempted.Time, finalized.Time
	j.countSnoozes()
	var names []string
	var failures []rivertype.AttemptError
	for _, column := range []struct {
		text string
		into any
	}{{workers, &names}, {facts, &j.Facts}, {tags, &j.Tags}, {errors, &failures}} {
		if err := json.Unmarshal([]byte(column.text), column.into); err != nil {
			return j, fmt.Errorf("task %d: a column can't be read: %w", j.ID, err)
		}
	}
	if len(names) > 0 {
		j.Worker = names[len(names)-1]
	}
	for _, f := range failures {
		j.Failures = append(j.Failures, Failure{f.Attempt, f.At, f.Error})
	}
	for _, column := range []struct {
		text string
		into *[]byte
	}{{body, &j.Body}, {output.String, &j.Output}, {progress, &j.Progress}} {
		if column.text == "" {
			continue
		}
		if *column.into, err = base64.StdEncoding.DecodeString(column.text); err != nil {
			return j, fmt.Errorf("task %d: a column can't be read: %w", j.ID, err)
		}
	}
	if output.Valid && j.Output == nil {
		j.Output = []byte{}
	}
	j.CancelRequested = j.CancelRequested && j.EndedAt.IsZero()
	if len(j.Tags) == 0 {
		j.Tags = nil
	}
	return j, nil
}

// countSnoozes makes Attempt a number that no other attempt had or will have: River
// takes an attempt that was put off back, and the number with it.
func (j *Job) countSnoozes() {
	j.Attempt += j.Snoozes
	j.MaxAttempts += j.Snoozes
}

// failureData is an attempt's failure as River keeps it.
func failureData(at time.Time, attempt int, why string) []byte {
	data, err := json.Marshal(rivertype.AttemptError{At: at.UTC(), Attempt: attempt, Error: why})
	if err != nil {
		panic(err) // a time, a number and a string can always be written
	}
	return data
}

// ended reports whether a state is final.
func (s State) ended() bool { return s == Done || s == Discarded || s == Cancelled }

// waits reports whether a job of the state waits for a worker, now or later.
func (s State) waits() bool { return s == Available || s == Scheduled || s == Retryable }
