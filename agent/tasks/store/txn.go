package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivershared/uniquestates"
	"github.com/riverqueue/river/rivertype"
)

// txn is a transaction under way. It implements Tx.
type txn struct {
	store   *Store
	tx      riverdriver.ExecutorTx
	moved   []Moved
	rings   []ring
	waiting map[string]int // how many more wait, by queue
}

func (t *txn) wait(queue string, n int) {
	if t.waiting == nil {
		t.waiting = make(map[string]int)
	}
	t.waiting[queue] += n
}

func (t *txn) addWaiting(more map[string]int) {
	for queue, n := range more {
		t.wait(queue, n)
	}
}

// unfinished are the states of a job that has not ended, as River's bits.
var unfinished = uniquestates.UniqueStatesToBitmask([]rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
})

// allStates are every state.
const allStates = byte(0xFF)

// soon is how far ahead a job may lie and yet be available: its alarm is set.
const soon = 5 * time.Second

// params makes River's parameters of a job.
func (s *Store) params(n *New, now time.Time) (*riverdriver.JobInsertFastParams, error) {
	if n.ID == 0 {
		n.ID = s.ids.next(now)
	}
	if err := n.check(); err != nil {
		return nil, err
	}
	args, err := json.Marshal(argsColumn{n.Body})
	if err != nil {
		return nil, err
	}
	facts := n.Facts
	if !facts.Deadline.IsZero() {
		facts.Deadline = facts.Deadline.UTC() // Overdue compares texts
	}
	metadata, err := json.Marshal(metadataColumn{Facts: &facts})
	if err != nil {
		return nil, err
	}
	runAt := n.RunAt
	if runAt.IsZero() {
		runAt = now
	}
	p := &riverdriver.JobInsertFastParams{
		ID: &n.ID, CreatedAt: &now, EncodedArgs: args, Kind: n.Kind, MaxAttempts: max(n.MaxAttempts, 1), Metadata: metadata,
		Priority: n.Priority, Queue: n.Queue, ScheduledAt: &runAt, State: rivertype.JobStateAvailable, Tags: n.Tags,
	}
	if p.Priority == 0 {
		p.Priority = 2
	}
	if p.Tags == nil {
		p.Tags = []string{}
	}
	switch {
	case n.Pending:
		p.State = rivertype.JobStatePending
	case runAt.Sub(now) > soon:
		p.State = rivertype.JobStateScheduled
	}
	if len(n.Unique) > 0 {
		p.UniqueKey, p.UniqueStates = uniqueKey(n.Unique), allStates
		if n.UntilEnded {
			p.UniqueStates = unfinished
		}
	}
	return p, nil
}

// check refuses what not every database can keep.
func (n *New) check() error {
	for _, text := range append([]string{n.Kind, n.Queue, n.Facts.Tenant, n.Facts.Step, n.Facts.Trace}, n.Tags...) {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("task %d: %q has a NUL character in it, which can't be kept", n.ID, text)
		}
	}
	for _, tag := range n.Tags {
		if tag == "" || len(tag) > 255 || strings.Contains(tag, ",") {
			return fmt.Errorf("task %d: the tag %q can't be kept: want 1 to 255 bytes and no comma", n.ID, tag)
		}
	}
	return nil
}

// uniqueKey is a key as it is kept.
func uniqueKey(key []byte) []byte {
	sum := sha256.Sum256(key)
	return sum[:]
}

// insertAll inserts the jobs of a batch in one statement.
func (t *txn) insertAll(ctx context.Context, batch []*op) error {
	n := 0
	for _, o := range batch {
		n += len(o.insert)
	}
	if n == 0 {
		return nil
	}
	news, owners := make([]New, 0, n), make([]*op, 0, n)
	for _, o := range batch {
		o.inserted = make([]Inserted, 0, len(o.insert))
		for i := range o.insert {
			news, owners = append(news, o.insert[i]), append(owners, o)
		}
	}
	inserted, err := t.insert(ctx, news)
	if err != nil {
		return err
	}
	for i, in := range inserted {
		o := owners[i]
		o.inserted = append(o.inserted, in)
		if !in.Existed {
			t.began(in.Job, &o.moved, &o.rings)
		}
	}
	return nil
}

// began notes a job that is new or waits again.
func (t *txn) began(j Job, moved *[]Moved, rings *[]ring) {
	*moved = append(*moved, movedOf(j))
	if j.State.waits() {
		t.wait(j.Queue, 1)
	}
	if j.State == Available {
		*rings = append(*rings, ring{j.Queue, j.RunAt})
	}
	if j.Facts.Tenant != "" {
		t.store.tenants.saw(j.Queue)
	}
}

func movedOf(j Job) Moved {
	return Moved{ID: j.ID, Kind: j.Kind, Queue: j.Queue, State: j.State, Parent: j.Facts.Parent}
}

// insert inserts jobs. Those whose unique key stands twice among them are one.
func (t *txn) insert(ctx context.Context, news []New) ([]Inserted, error) {
	now := time.Now()
	jobs := make([]*riverdriver.JobInsertFastParams, 0, len(news))
	at := make([]int, len(news)) // which of jobs a new one is
	keys := make(map[string]int)
	for i := range news {
		p, err := t.store.params(&news[i], now)
		if err != nil {
			return nil, err
		}
		if n, twice := keys[string(p.UniqueKey)]; twice && len(p.UniqueKey) > 0 {
			at[i] = n
			continue
		}
		at[i] = len(jobs)
		if len(p.UniqueKey) > 0 {
			keys[string(p.UniqueKey)] = len(jobs)
		}
		jobs = append(jobs, p)
	}
	results, err := t.tx.JobInsertFastMany(ctx, &riverdriver.JobInsertFastManyParams{Jobs: jobs})
	if err != nil {
		return nil, err
	}
	if len(results) != len(jobs) {
		return nil, fmt.Errorf("the store answered %d inserts of %d", len(results), len(jobs))
	}
	found := make([]Inserted, len(jobs))
	for i, r := range results {
		j, err := jobOf(r.Job)
		if err != nil {
			return nil, err
		}
		// Whether River says so or not: another id is another job.
		found[i] = Inserted{Job: j, Existed: r.UniqueSkippedAsDuplicate || j.ID != *jobs[i].ID}
	}
	out := make([]Inserted, len(news))
	first := make([]bool, len(jobs))
	for i, n := range at {
		out[i] = found[n]
		out[i].Existed = out[i].Existed || first[n]
		first[n] = true
	}
	return out, nil
}

// Get implements Tx.
func (t *txn) Get(ctx context.Context, id int64) (Job, error) {
	if lock := t.store.dialect.lock(); lock != "" {
		var locked int64
		if err := t.tx.QueryRow(ctx, "SELECT id FROM river_job WHERE id = $1"+lock, id).Scan(&locked); err != nil {
			return Job{}, notFound(err)
		}
	}
	row, err := t.tx.JobGetByID(ctx, &riverdriver.JobGetByIDParams{ID: id})
	if err != nil {
		return Job{}, notFound(err)
	}
	return jobOf(row)
}

// Insert implements Tx.
func (t *txn) Insert(ctx context.Context, jobs []New) ([]Inserted, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	inserted, err := t.insert(ctx, jobs)
	for _, in := range inserted {
		if !in.Existed {
			t.began(in.Job, &t.moved, &t.rings)
		}
	}
	return inserted, err
}

// SetProgress implements Tx.
func (t *txn) SetProgress(ctx context.Context, id int64, progress []byte) error {
	return t.merge(ctx, id, map[string]any{"p": base64.StdEncoding.EncodeToString(progress)})
}

// End implements Tx.
func (t *txn) End(ctx context.Context, id int64, o Outcome) error {
	j, err := t.Get(ctx, id)
	if err != nil {
		return err
	}
	if j.State == Running || j.State.ended() || !o.state.ended() {
		return fmt.Errorf("%w: it is %s", ErrState, j.State)
	}
	now := time.Now()
	p := &riverdriver.JobUpdateFullParams{ID: id, StateDoUpdate: true, State: rivertype.JobState(o.state), FinalizedAtDoUpdate: true, FinalizedAt: &now}
	if o.state == Discarded {
		p.ErrorsDoUpdate = true
		for _, f := range j.Failures {
			p.Errors = append(p.Errors, failureData(f.At, f.Attempt, f.Error))
		}
		p.Errors = append(p.Errors, failureData(now, max(j.Attempt, 1), o.err))
	}
	if _, err := t.tx.JobUpdateFull(ctx, p); err != nil {
		return err
	}
	if err := t.merge(ctx, id, outcomeMetadata(o)); err != nil {
		return err
	}
	if j.State.waits() {
		t.wait(j.Queue, -1)
	}
	j.State = o.state
	t.moved = append(t.moved, movedOf(j))
	return nil
}

// Reopen implements Tx.
func (t *txn) Reopen(ctx context.Context, id int64) error {
	j, err := t.Get(ctx, id)
	if err != nil {
		return err
	}
	if !j.State.ended() {
		return fmt.Errorf("%w: it is %s", ErrState, j.State)
	}
	if err := t.tx.Exec(ctx, "UPDATE river_job SET metadata = "+t.store.dialect.forgetCancel()+" WHERE id = $1", id); err != nil {
		return err
	}
	p := &riverdriver.JobUpdateFullParams{ID: id, StateDoUpdate: true, State: rivertype.JobStatePending, FinalizedAtDoUpdate: true}
	if _, err := t.tx.JobUpdateFull(ctx, p); isTaken(err) {
		return fmt.Errorf("%w: another one that has not ended has its unique key", ErrState)
	} else if err != nil {
		return err
	}
	j.State = Pending
	t.moved = append(t.moved, movedOf(j))
	return t.merge(ctx, id, map[string]any{"n": "", "o": nil})
}

// merge changes keys of a job's metadata; nil takes one out.
func (t *txn) merge(ctx context.Context, id int64, changes map[string]any) error {
	metadata, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	_, err = t.tx.JobUpdate(ctx, &riverdriver.JobUpdateParams{ID: id, MetadataDoMerge: true, Metadata: metadata})
	return notFound(err)
}

// Cancel implements Tx.
func (t *txn) Cancel(ctx context.Context, id int64) error {
	_, err := t.cancel(ctx, id)
	return err
}

func (t *txn) cancel(ctx context.Context, id int64) (Job, error) {
	before, err := t.Get(ctx, id)
	if err != nil || before.State.ended() {
		return before, err
	}
	now := time.Now()
	topic := topicControl
	if t.store.options.SQLite != nil {
		topic = "" // there is nobody else to tell
	}
	row, err := t.tx.JobCancel(ctx, &riverdriver.JobCancelParams{ID: id, CancelAttemptedAt: now, ControlTopic: topic, Now: &now})
	if err != nil {
		return before, notFound(err)
	}
	j, err := jobOf(row)
	if err != nil {
		return j, err
	}
	if j.State == Cancelled {
		if before.State.waits() {
			t.wait(j.Queue, -1)
		}
		t.moved = append(t.moved, movedOf(j))
	} else {
		t.moved = append(t.moved, Moved{ID: j.ID, Kind: j.Kind, Queue: j.Queue, State: j.State, Parent: j.Facts.Parent, CancelRequested: true})
	}
	return j, nil
}

// outcomeMetadata is what the end of an attempt leaves in the metadata.
func outcomeMetadata(o Outcome) map[string]any {
	m := map[string]any{"n": o.err}
	if o.output != nil {
		m["o"] = base64.StdEncoding.EncodeToString(o.output)
	}
	return m
}

// notFound turns River's error into ours.
func notFound(err error) error {
	if errors.Is(err, rivertype.ErrNotFound) || isNoRows(err) {
		return ErrNotFound
	}
	return err
}
