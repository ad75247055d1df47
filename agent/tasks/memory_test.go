package tasks

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

// memory is a store in memory whose timers are those of testing/synctest: it does
// what package store says of its methods, one transaction at a time.
type memory struct {
	moved func(store.Moved)
	slow  time.Duration // how long a lease takes
	lease time.Duration

	mu      sync.Mutex
	jobs    map[int64]*row
	last    atomic.Int64
	paused  map[string]bool
	down    error // every method fails with it
	work    store.Work
	running map[int64]context.CancelCauseFunc
	busy    map[string]int
	turns   map[string]int64 // by queue and tenant: when one was fetched last
	turn    int64
	kick    chan struct{}
	ended   chan struct{}
	all     sync.WaitGroup
	events  []store.Moved
	// commits are left until the crash; 0: none comes. crashKept: the commit at
	// which it comes is kept. dead: it came.
	commits   int
	crashKept bool
	dead      bool
}

type row struct {
	store.Job
	unique     string
	untilEnded bool
	pending    bool
	lease      time.Time
}

// outcome is a store.Outcome whose parts can be seen.
type outcome struct {
	State  store.State
	Output []byte
	Why    string
	RunAt  time.Time
	Snooze bool
}

// seen looks into an Outcome, which only package store can do otherwise.
func seen(o store.Outcome) (s outcome) {
	v := reflect.ValueOf(&o).Elem()
	part := func(name string, into any) {
		f := v.FieldByName(name)
		reflect.ValueOf(into).Elem().Set(reflect.NewAt(f.Type(), f.Addr().UnsafePointer()).Elem())
	}
	part("state", &s.State)
	part("output", &s.Output)
	part("err", &s.Why)
	part("runAt", &s.RunAt)
	part("snooze", &s.Snooze)
	return s
}

var errCrash = errors.New("the process crashed")

func newMemory(moved func(store.Moved)) *memory {
	return &memory{
		moved: moved, lease: 30 * time.Second, jobs: map[int64]*row{}, paused: map[string]bool{}, running: map[int64]context.CancelCauseFunc{},
		busy: map[string]int{}, turns: map[string]int64{}, kick: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

func (m *memory) NewID() int64 { return m.last.Add(1) }

// within runs do as one transaction.
func (m *memory) within(do func() error) error {
	m.mu.Lock()
	if m.down != nil {
		defer m.mu.Unlock()
		return m.down
	}
	before := map[int64]row{}
	for id, r := range m.jobs {
		before[id] = *r
	}
	m.events = nil
	err := do()
	if err == nil && m.commits > 0 && len(m.events) > 0 {
		if m.commits--; m.commits == 0 {
			m.dead, m.down = true, errCrash
			if err = errCrash; m.crashKept {
				m.mu.Unlock()
				return err
			}
		}
	}
	if err != nil {
		m.jobs = map[int64]*row{}
		for id, r := range before {
			m.jobs[id] = &r
		}
		m.mu.Unlock()
		return err
	}
	events := m.events
	m.mu.Unlock()
	for _, e := range events {
		m.moved(e)
	}
	if len(events) > 0 {
		m.look()
	}
	return nil
}

// read runs do, which changes nothing.
func (m *memory) read(do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down
	}
	return do()
}

func (m *memory) look() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *memory) tell(r *row) {
	m.events = append(m.events, store.Moved{ID: r.ID, Kind: r.Kind, Queue: r.Queue, State: r.State, Parent: r.Facts.Parent})
}

func (m *memory) insert(jobs []store.New) (all []store.Inserted) {
	for _, n := range jobs {
		if there := m.find(n.Unique); there != nil {
			all = append(all, store.Inserted{Job: there.Job, Existed: true})
			continue
		}
		now := time.Now()
		if n.RunAt.IsZero() {
			n.RunAt = now
		}
		r := &row{Job: store.Job{
			ID: n.ID, Kind: n.Kind, Queue: n.Queue, Priority: n.Priority, State: store.Available, MaxAttempts: n.MaxAttempts, RunAt: n.RunAt,
			SubmittedAt: now, Body: n.Body, Facts: n.Facts, Tags: n.Tags,
		}, unique: string(n.Unique), untilEnded: n.UntilEnded, pending: n.Pending}
		switch {
		case n.Pending:
			r.State = store.Pending
		case n.RunAt.After(now):
			r.State = store.Scheduled
		}
		m.jobs[n.ID] = r
		m.tell(r)
		all = append(all, store.Inserted{Job: r.Job})
	}
	return all
}

func (m *memory) find(unique []byte) *row {
	if len(unique) == 0 {
		return nil
	}
	for _, r := range m.jobs {
		if r.unique == string(unique) && !(r.untilEnded && hasEnded(r.State)) {
			return r
		}
	}
	return nil
}

func (m *memory) Insert(_ context.Context, jobs []store.New) (all []store.Inserted, err error) {
	err = m.within(func() error { all = m.insert(jobs); return nil })
	return all, err
}

func (m *memory) Find(_ context.Context, unique []byte) (j store.Job, err error) {
	err = m.read(func() error {
		for _, r := range m.jobs {
			if r.unique == string(unique) && r.ID > j.ID {
				j = r.Job
			}
		}
		if j.ID == 0 {
			return store.ErrNotFound
		}
		return nil
	})
	return j, err
}

func (m *memory) Get(_ context.Context, id int64) (j store.Job, err error) {
	err = m.read(func() error {
		r := m.jobs[id]
		if r == nil {
			return store.ErrNotFound
		}
		j = r.Job
		return nil
	})
	return j, err
}

func (m *memory) List(_ context.Context, f store.Filter) (all []store.Job, err error) {
	err = m.read(func() error {
		for _, id := range slices.Backward(slices.Sorted(maps.Keys(m.jobs))) {
			r := m.jobs[id]
			if len(f.States) > 0 && !slices.Contains(f.States, r.State) || f.Kind != "" && r.Kind != f.Kind || f.Queue != "" && r.Queue != f.Queue ||
				f.Tag != "" && !slices.Contains(r.Tags, f.Tag) || f.Parent != 0 && r.Facts.Parent != f.Parent || f.After != 0 && id >= f.After {
				continue
			}
			j := r.Job
			if !f.Payload {
				j.Body, j.Output = nil, nil
			}
			if all = append(all, j); len(all) == f.Limit {
				break
			}
		}
		return nil
	})
	return all, err
}

func (m *memory) Overdue(_ context.Context, now time.Time, limit int) (all []store.Job, err error) {
	err = m.read(func() error {
		for _, r := range m.jobs {
			if d := r.Facts.Deadline; !d.IsZero() && d.Before(now) && !hasEnded(r.State) && r.State != store.Running && len(all) < limit {
				all = append(all, r.Job)
			}
		}
		return nil
	})
	return all, err
}

// start begins an attempt of a job.
func (m *memory) start(r *row, worker string, until time.Time) {
	r.State, r.Worker, r.StartedAt, r.lease = store.Running, worker, time.Now(), until
	r.Attempt++
	m.turn++
	m.turns[r.Queue+"\x00"+r.Facts.Tenant] = m.turn
	m.tell(r)
}

// next returns the job that is fetched next from the queues: those of tenants who
// waited longest first, by priority, then by time.
func (m *memory) next(queues []string) *row {
	now := time.Now()
	var best *row
	for _, r := range m.jobs {
		waits := r.State == store.Available || (r.State == store.Scheduled || r.State == store.Retryable)
		if !waits || r.RunAt.After(now) || !slices.Contains(queues, r.Queue) || m.paused[r.Queue] {
			continue
		}
		if best == nil || m.before(r, best) {
			best = r
		}
	}
	return best
}

func (m *memory) before(a, b *row) bool {
	return cmp.Or(
		cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(m.turns[a.Queue+"\x00"+a.Facts.Tenant], m.turns[b.Queue+"\x00"+b.Facts.Tenant]),
		a.RunAt.Compare(b.RunAt),
		cmp.Compare(a.ID, b.ID),
	) < 0
}

func (m *memory) Lease(_ context.Context, r store.LeaseRequest) (all []store.Job, err error) {
	defer func() { time.Sleep(m.slow) }() // what was leased is
	err = m.within(func() error {
		for len(all) < r.Max {
			j := m.next(r.Queues)
			if j == nil {
				return nil
			}
			m.start(j, r.Worker, time.Now().Add(r.For[j.Queue]))
			all = append(all, j.Job)
		}
		return nil
	})
	return all, err
}

func (m *memory) Renew(_ context.Context, held []store.Held, until []time.Time) (all []store.Renewal, err error) {
	err = m.within(func() error {
		for i, h := range held {
			r := m.jobs[h.ID]
			if r == nil || r.State != store.Running || r.Attempt != h.Attempt {
				all = append(all, store.Renewal{})
				continue
			}
			r.lease = until[i]
			all = append(all, store.Renewal{Until: until[i], CancelRequested: r.CancelRequested})
		}
		return nil
	})
	return all, err
}

// end makes an outcome true of a job.
func (m *memory) end(r *row, o store.Outcome) {
	see := seen(o)
	r.State, r.Note, r.lease = see.State, see.Why, time.Time{}
	switch {
	case hasEnded(see.State):
		r.EndedAt = time.Now()
		if see.State == store.Done {
			r.Output = see.Output
		}
	case r.CancelRequested:
		r.State, r.EndedAt = store.Cancelled, time.Now()
	case see.Snooze:
		r.RunAt = see.RunAt
		r.MaxAttempts++
		r.Snoozes++
	default:
		r.RunAt = see.RunAt
	}
	if see.Why != "" && !see.Snooze && see.State != store.Cancelled {
		r.Failures = append(slices.Clone(r.Failures), store.Failure{Attempt: r.Attempt, At: time.Now(), Error: see.Why})
	}
	m.tell(r)
}

func (m *memory) Finish(ctx context.Context, h store.Held, o store.Outcome, also func(context.Context, store.Tx) error) error {
	return m.within(func() error {
		r := m.jobs[h.ID]
		if r == nil || r.State != store.Running || r.Attempt != h.Attempt {
			return store.ErrLost
		}
		m.end(r, o)
		if also != nil {
			return also(ctx, tx{m})
		}
		return nil
	})
}

func (m *memory) Update(ctx context.Context, do func(context.Context, store.Tx) error) error {
	return m.within(func() error { return do(ctx, tx{m}) })
}

func (m *memory) cancel(id int64) error {
	r := m.jobs[id]
	switch {
	case r == nil:
		return store.ErrNotFound
	case hasEnded(r.State):
	case r.State == store.Running:
		r.CancelRequested = true
		if stop := m.running[id]; stop != nil {
			stop(store.ErrCancelled)
		}
	default:
		r.State, r.EndedAt = store.Cancelled, time.Now()
		m.tell(r)
	}
	return nil
}

func (m *memory) Cancel(ctx context.Context, id int64) (store.Job, error) {
	if err := m.within(func() error { return m.cancel(id) }); err != nil {
		return store.Job{}, err
	}
	return m.Get(ctx, id)
}

func (m *memory) Retry(ctx context.Context, id int64) (store.Job, error) {
	err := m.within(func() error {
		r := m.jobs[id]
		switch {
		case r == nil:
			return store.ErrNotFound
		case r.State == store.Running || r.State == store.Done || r.State == store.Pending:
			return store.ErrState
		case hasEnded(r.State):
			r.Attempt = 0
		}
		r.State, r.RunAt, r.EndedAt, r.CancelRequested = store.Available, time.Now(), time.Time{}, false
		m.tell(r)
		return nil
	})
	if err != nil {
		return store.Job{}, err
	}
	return m.Get(ctx, id)
}

func (m *memory) Purge(_ context.Context, f store.PurgeFilter) (n int, err error) {
	err = m.within(func() error {
		for id, r := range m.jobs {
			if !hasEnded(r.State) || f.ID != 0 && id != f.ID || len(f.States) > 0 && !slices.Contains(f.States, r.State) || f.Kind != "" && r.Kind != f.Kind ||
				f.Queue != "" && r.Queue != f.Queue || !f.EndedBefore.IsZero() && !r.EndedAt.Before(f.EndedBefore) {
				continue
			}
			delete(m.jobs, id)
			n++
		}
		return nil
	})
	return n, err
}

func (m *memory) pause(queue string, on bool) error {
	return m.within(func() error { m.paused[queue] = on; m.events = []store.Moved{{Queue: queue}}; return nil })
}

func (m *memory) Pause(_ context.Context, queue string) error  { return m.pause(queue, true) }
func (m *memory) Resume(_ context.Context, queue string) error { return m.pause(queue, false) }

func (m *memory) Queues(_ context.Context, names []string) (all []store.Queue, err error) {
	err = m.read(func() error {
		for _, name := range names {
			q := store.Queue{Name: name, Paused: m.paused[name]}
			for _, r := range m.jobs {
				if r.Queue != name {
					continue
				}
				switch r.State {
				case store.Available:
					q.Available++
				case store.Scheduled:
					q.Scheduled++
				case store.Retryable:
					q.Retryable++
				case store.Running:
					q.Running++
				case store.Discarded:
					q.Discarded++
				}
			}
			all = append(all, q)
		}
		return nil
	})
	return all, err
}

func (m *memory) Waiting(queue string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.jobs {
		if r.Queue == queue && (r.State == store.Available || r.State == store.Scheduled || r.State == store.Retryable) {
			n++
		}
	}
	return n
}

func (m *memory) Problem() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down != nil {
		return m.down.Error()
	}
	return ""
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
	m.look()
}

// crashIn has the process crash at its n-th commit from now on.
func (m *memory) crashIn(n int, kept bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits, m.crashKept = n, kept
}

func (m *memory) crashed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dead
}

// takeOver takes what another store keeps; what ran there runs again.
func (m *memory) takeOver(other *memory) {
	other.mu.Lock()
	defer other.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last.Store(other.last.Load())
	for id, r := range other.jobs {
		c := *r
		if c.State == store.Running {
			c.State, c.RunAt = store.Available, time.Now()
		}
		m.jobs[id] = &c
	}
}

func (m *memory) SetQueues(_ context.Context, workers map[string]int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.work.Queues = workers
	return nil
}

func (m *memory) Start(_ context.Context, w store.Work) error {
	m.work = w
	m.look()
	m.all.Go(m.fetch)
	return nil
}

// fetch runs what is due, and takes back what lapsed.
func (m *memory) fetch() {
	for {
		select {
		case <-m.ended:
			return
		case <-m.kick:
		case <-time.After(time.Until(m.due())):
		}
		m.lapse()
		for m.fetchOne() {
		}
	}
}

// due returns when something is to be done next without anybody saying so.
func (m *memory) due() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := time.Now().Add(time.Hour)
	if m.down != nil {
		return next
	}
	for _, r := range m.jobs {
		at := r.RunAt
		switch {
		case r.State == store.Running && !r.lease.IsZero():
			at = r.lease
		case r.State != store.Scheduled && r.State != store.Retryable || !at.After(time.Now()):
			continue
		}
		if at.Before(next) {
			next = at
		}
	}
	return next
}

func (m *memory) lapse() {
	_ = m.within(func() error {
		for _, r := range m.jobs {
			if r.State != store.Running || r.lease.IsZero() || r.lease.After(time.Now()) {
				if (r.State == store.Scheduled || r.State == store.Retryable) && !r.RunAt.After(time.Now()) {
					r.State = store.Available
					m.tell(r)
				}
				continue
			}
			o := store.Retry(time.Now(), "its lease lapsed")
			if r.Attempt >= r.MaxAttempts {
				o = store.GiveUp("its lease lapsed")
			}
			m.end(r, o)
		}
		return nil
	})
}

func (m *memory) fetchOne() bool {
	var events []store.Moved
	defer func() { // after the lock is given back
		for _, e := range events {
			m.moved(e)
		}
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.ended:
		return false
	default:
	}
	if m.down != nil {
		return false
	}
	var free []string
	for q, n := range m.work.Queues {
		if m.busy[q] < n {
			free = append(free, q)
		}
	}
	r := m.next(free)
	if r == nil {
		return false
	}
	m.events = nil
	m.start(r, "agent", time.Time{})
	events = m.events
	m.busy[r.Queue]++
	ctx, stop := context.WithCancelCause(context.Background())
	m.running[r.ID] = stop
	j := r.Job
	m.all.Go(func() {
		m.work.Do(ctx, j)
		stop(nil)
		m.mu.Lock()
		delete(m.running, j.ID)
		m.busy[j.Queue]--
		m.mu.Unlock()
		m.look()
	})
	return true
}

func (m *memory) Stop(ctx context.Context) error {
	close(m.ended)
	idle := make(chan struct{})
	go func() { m.all.Wait(); close(idle) }()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
	}
	m.mu.Lock()
	for _, stop := range m.running {
		stop(store.ErrStopping)
	}
	m.mu.Unlock()
	<-idle
	return nil
}

// tx is a transaction of memory.
type tx struct{ m *memory }

func (t tx) Get(_ context.Context, id int64) (store.Job, error) {
	r := t.m.jobs[id]
	if r == nil {
		return store.Job{}, store.ErrNotFound
	}
	return r.Job, nil
}

func (t tx) Insert(_ context.Context, jobs []store.New) ([]store.Inserted, error) {
	return t.m.insert(jobs), nil
}

func (t tx) SetProgress(_ context.Context, id int64, progress []byte) error {
	r := t.m.jobs[id]
	switch {
	case r == nil:
		return store.ErrNotFound
	case hasEnded(r.State):
		return store.ErrState
	}
	r.Progress = bytes.Clone(progress)
	t.m.tell(r)
	return nil
}

func (t tx) End(_ context.Context, id int64, o store.Outcome) error {
	r := t.m.jobs[id]
	switch {
	case r == nil:
		return store.ErrNotFound
	case hasEnded(r.State) || r.State == store.Running:
		return store.ErrState
	}
	t.m.end(r, o)
	return nil
}

func (t tx) Reopen(_ context.Context, id int64) error {
	r := t.m.jobs[id]
	if r == nil || !hasEnded(r.State) || !r.pending {
		return store.ErrState
	}
	r.State, r.EndedAt, r.Note, r.Output, r.CancelRequested, r.Failures = store.Pending, time.Time{}, "", nil, false, nil
	t.m.tell(r)
	return nil
}

func (t tx) Cancel(_ context.Context, id int64) error { return t.m.cancel(id) }
