package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// modelled is what a job must be like.
type modelled struct {
	state     State
	attempt   int
	cancelled bool
	key       string
}

// model is a store as simple as can be.
type model struct {
	t     *rapid.T
	s     *shelf
	ids   []int64
	jobs  map[int64]*modelled
	holds []Held // every attempt that ever was
}

func (m *model) any() int64 { return rapid.SampledFrom(m.ids).Draw(m.t, "id") }

func (m *model) holder(key string) int64 {
	for id, j := range m.jobs {
		if key != "" && j.key == key && !j.state.ended() {
			return id
		}
	}
	return 0
}

func (m *model) insert(t *rapid.T) {
	n := New{Kind: "k", Queue: "q", Priority: 1, MaxAttempts: 3, UntilEnded: true}
	key := rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "key")
	n.Unique = []byte(key)
	want := m.holder(key)
	in, err := m.s.Insert(m.s.t.Context(), []New{n})
	switch {
	case err != nil:
		t.Fatal(err)
	case want != 0:
		if !in[0].Existed || in[0].Job.ID != want {
			t.Fatalf("%+v was inserted beside %d", in[0], want)
		}
	case in[0].Existed:
		t.Fatalf("%+v existed", in[0])
	default:
		m.ids = append(m.ids, in[0].Job.ID)
		m.jobs[in[0].Job.ID] = &modelled{state: Available, key: key}
	}
}

func (m *model) lease(t *rapid.T) {
	n := rapid.IntRange(1, 3).Draw(t, "n")
	waiting := 0
	for _, j := range m.jobs {
		if j.state == Available {
			waiting++
		}
	}
	leased, err := m.s.Lease(m.s.t.Context(), LeaseRequest{Queues: []string{"q"}, Worker: "w", Max: n, For: map[string]time.Duration{"q": time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	if len(leased) != min(n, waiting) {
		t.Fatalf("%d leased of %d, %d asked for", len(leased), waiting, n)
	}
	for _, l := range leased {
		j := m.jobs[l.ID]
		if j.state != Available || l.Attempt != j.attempt+1 {
			t.Fatalf("leased %+v of %+v", l, *j)
		}
		j.state, j.attempt = Running, l.Attempt
		m.holds = append(m.holds, Held{l.ID, l.Attempt})
	}
}

func (m *model) finish(t *rapid.T) {
	if len(m.holds) == 0 {
		t.Skip("nothing was leased")
	}
	h := rapid.SampledFrom(m.holds).Draw(t, "held")
	past := time.Now().Add(-time.Second)
	end := rapid.SampledFrom([]struct {
		o     Outcome
		state State
	}{
		{Completed([]byte("x")), Done}, {Retry(past, "down"), Available}, {GiveUp("gone"), Discarded}, {Stopped("asked"), Cancelled}, {Snooze(past, "later"), Available},
	}).Draw(t, "outcome")
	j := m.jobs[h.ID]
	holds := j.state == Running && j.attempt == h.Attempt
	boom := errors.New("boom")
	var err error
	if fails := rapid.Bool().Draw(t, "also fails"); fails {
		err = m.s.Finish(m.s.t.Context(), h, end.o, func(context.Context, Tx) error { return boom })
		if want := map[bool]error{true: boom, false: ErrLost}[holds]; !errors.Is(err, want) {
			t.Fatalf("%v, want %v", err, want)
		}
		return
	}
	err = m.s.Finish(m.s.t.Context(), h, end.o, nil)
	if holds != (err == nil) || !holds && !errors.Is(err, ErrLost) {
		t.Fatalf("%v for %+v of %+v", err, h, *j)
	}
	if !holds {
		return
	}
	j.state = end.state
	if j.cancelled && !j.state.ended() {
		j.state = Cancelled
	}
}

func (m *model) cancel(t *rapid.T) {
	if len(m.ids) == 0 {
		t.Skip("there is none")
	}
	id := m.any()
	j := m.jobs[id]
	got, err := m.s.Cancel(m.s.t.Context(), id)
	switch j.state {
	case Available:
		j.state = Cancelled
	case Running:
		j.cancelled = true
	}
	if err != nil || got.State != j.state {
		t.Fatalf("%+v %v, want %+v", got, err, *j)
	}
}

func (m *model) retry(t *rapid.T) {
	if len(m.ids) == 0 {
		t.Skip("there is none")
	}
	id := m.any()
	j := m.jobs[id]
	taken := m.holder(j.key) != 0 && m.holder(j.key) != id
	_, err := m.s.Retry(m.s.t.Context(), id)
	if j.state == Running || j.state == Done || taken {
		if !errors.Is(err, ErrState) {
			t.Fatalf("%v for %+v", err, *j)
		}
		return
	}
	if err != nil {
		t.Fatalf("%v for %+v", err, *j)
	}
	j.state, j.cancelled = Available, false
}

// crash ends the store as a crash does, and opens it again.
func (m *model) crash(t *rapid.T) {
	options := m.s.options
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.s.Store, err = Open(m.s.t.Context(), options); err != nil {
		t.Fatal(err)
	}
}

func (m *model) check(t *rapid.T) {
	waiting := 0
	for id, want := range m.jobs {
		j, err := m.s.Get(m.s.t.Context(), id)
		if err != nil || j.State != want.state || j.Attempt != want.attempt || j.CancelRequested != (want.cancelled && want.state == Running) {
			t.Fatalf("it is %+v, %v, want %+v", j, err, *want)
		}
		if want.state.waits() {
			waiting++
		}
	}
	if n := m.s.Waiting("q"); n != waiting {
		t.Fatalf("%d wait, want %d", n, waiting)
	}
}

// TestAStoreIsLikeItsModel does anything in any order: no job is lost, no attempt has
// another one's number, and an attempt that is over changes nothing.
func TestAStoreIsLikeItsModel(t *testing.T) {
	folder := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		own, err := os.MkdirTemp(folder, "")
		if err != nil {
			rt.Fatal(err)
		}
		s := open(t, Options{SQLite: &SQLite{Path: filepath.Join(own, "tasks.db"), Normal: true}})
		defer s.end()
		m := &model{t: rt, s: s, jobs: make(map[int64]*modelled)}
		rt.Repeat(map[string]func(*rapid.T){
			"insert": m.insert, "lease": m.lease, "finish": m.finish, "cancel": m.cancel, "retry": m.retry, "crash": m.crash, "": m.check,
		})
	})
}
