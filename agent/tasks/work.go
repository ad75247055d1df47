package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Bounds of a stream of work.
const (
	// maxHeld is how many tasks one stream may hold and ask for.
	maxHeld = 10000
	// leaseMost is how many are leased at a time.
	leaseMost = 100
	// heardAhead is how many messages of a worker are taken while the store is busy
	// with those before: what they ask for is leased together.
	heardAhead = 256
	// looksAgain is how soon the store is asked again that failed.
	looksAgain = time.Second
)

// session is a worker's stream. Its loop alone touches what is not guarded, and
// sends.
type session struct {
	e      *Executor
	kept   Store
	send   func(*outriggerv1.WorkResponse) error
	kinds  []string
	worker string
	more   int             // tasks that may come
	noMore bool            // none is to come
	leaves bool            // the worker stops
	held   map[int64]*hold // by job
	every  time.Duration   // between renewals
	look   chan struct{}   // somebody cancelled a task: renew now
	came   chan found      // from the goroutine that leases; it has room for one
	ended  chan concluded  // from the goroutines that keep how tasks ended
	beside sync.WaitGroup  // those goroutines
	over   chan struct{}   // closed with the stream
	asked  bool            // for tasks: came will have something
	failed bool            // the store, at the last lease
}

// found is what a lease brought.
type found struct {
	jobs []leased
	err  error
}

// hold is a task that the worker has.
type hold struct {
	leased
	ending    bool // it was reported, and is being kept
	cancelled bool // the worker was told to stop
}

// concluded is how a report was kept.
type concluded struct {
	lease *outriggerv1.TaskLease
	id    int64
	plan  plan
	err   error
}

// Work serves a worker's stream: receive returns what it says, and io.EOF once it
// says no more.
func (e *Executor) Work(ctx context.Context, receive func() (*outriggerv1.WorkRequest, error), send func(*outriggerv1.WorkResponse) error) error {
	kept, err := e.kept()
	if err != nil {
		return err
	}
	first, err := receive()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	open := first.GetOpen()
	if open == nil {
		return invalid(&FieldError{"open", "the first message must be open, and say which kinds are worked"})
	}
	settings := e.settings.Load()
	if err := settings.checkAppKinds(open.GetKinds()); err != nil {
		return invalid(err.within("open"))
	}
	if !e.sessions.enter() {
		_, err := e.kept()
		return err
	}
	defer e.sessions.leave()
	s := &session{
		e: e, kept: kept, send: send, kinds: open.GetKinds(), worker: open.GetWorker(), held: map[int64]*hold{},
		look: make(chan struct{}, 1), came: make(chan found, 1), ended: make(chan concluded), over: make(chan struct{}), every: time.Hour,
	}
	for _, kind := range s.kinds {
		s.every = min(s.every, max(settings.Kinds[kind].Lease/3, 100*time.Millisecond))
	}
	requests, failed := make(chan *outriggerv1.WorkRequest, heardAhead), make(chan error, 1)
	go func() { // ends with the stream, which ends once this method has returned
		for {
			r, err := receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-s.over:
				return
			}
		}
	}()
	err = s.run(ctx, requests, failed)
	close(s.over)
	s.beside.Wait()
	if s.asked {
		f := <-s.came
		e.takeBack(ctx, f.jobs, goneWhy)
	}
	s.giveBack(ctx)
	return err
}

// run serves the stream until it ends.
func (s *session) run(ctx context.Context, requests <-chan *outriggerv1.WorkRequest, failed <-chan error) error {
	renew := time.NewTicker(s.every)
	defer renew.Stop()
	stopping := s.e.stopping
	var p *place
	defer func() {
		if p != nil {
			s.e.leaveDesk(p, false)
		}
	}()
	for {
		if err := s.catchUp(ctx, requests); err != nil {
			return err
		}
		var called <-chan struct{}
		var again <-chan time.Time
		switch wanted := s.more > 0 && !s.noMore; {
		case s.asked:
		case wanted && p == nil:
			p = s.e.desk.line(s.kinds) // before the look: no arrival goes unseen
			s.lease(ctx)
		case wanted:
			called = p.called
			if s.failed {
				again = time.After(looksAgain)
			}
		case p != nil:
			s.e.leaveDesk(p, false)
			p = nil
		}
		nothing := len(s.held) == 0 && !s.asked
		if s.leaves && nothing {
			return nil
		}
		if s.noMore && stopping == nil && nothing {
			_, err := s.e.kept() // the agent stops, and nothing is left to wait for
			return err
		}
		select {
		case f := <-s.came:
			s.asked, s.failed = false, f.err != nil // the stream outlives a store that is down for a while
			if len(f.jobs) > 0 {
				s.e.leaveDesk(p, true)
				p = nil
			}
			if err := s.handOut(ctx, f.jobs); err != nil {
				return err
			}
		case <-called:
			p = nil
		case <-again:
			s.e.leaveDesk(p, false)
			p = nil
		case r := <-requests:
			if err := s.hear(ctx, r); err != nil {
				return err
			}
		case err := <-failed:
			if problem := s.catchUp(ctx, requests); problem != nil {
				return problem
			}
			if errors.Is(err, io.EOF) {
				return nil // what is held can't be reported any more
			}
			return err
		case c := <-s.ended:
			if err := s.answer(c); err != nil {
				return err
			}
		case <-renew.C:
			if err := s.renew(ctx); err != nil {
				return err
			}
		case <-s.look:
			if err := s.renew(ctx); err != nil {
				return err
			}
		case <-stopping:
			stopping, s.noMore = nil, true
		case <-s.e.stopped:
			_, err := s.e.kept()
			return err
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// catchUp hears what the worker said and answers what was kept meanwhile, without
// waiting for more.
func (s *session) catchUp(ctx context.Context, requests <-chan *outriggerv1.WorkRequest) error {
	for range 2 * heardAhead {
		var err error
		select {
		case r := <-requests:
			err = s.hear(ctx, r)
		case c := <-s.ended:
			err = s.answer(c)
		default:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lease leases what may come, beside the loop: what was reported meanwhile is
// answered.
func (s *session) lease(ctx context.Context) {
	s.asked = true
	n := min(s.more, leaseMost)
	s.beside.Go(func() {
		jobs, err := s.e.leaseJobs(ctx, s.kept, s.kinds, s.worker, n, nil)
		s.came <- found{jobs, err}
	})
}

// handOut sends what was leased.
func (s *session) handOut(ctx context.Context, jobs []leased) error {
	for i := range jobs {
		if s.noMore { // since they were asked for
			s.beside.Go(func() { s.e.takeBack(ctx, jobs[i:], "its worker or the agent stopped before it came") })
			return nil
		}
		l := &jobs[i]
		task := s.e.handOut(ctx, l)
		if task == nil {
			continue
		}
		s.more--
		s.held[l.ID] = &hold{leased: *l}
		s.e.sessions.hold(l.ID, s)
		if err := s.send(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Task{Task: task}}); err != nil {
			s.forget(l.ID)
			s.beside.Go(func() { s.e.takeBack(ctx, jobs[i:], goneWhy) })
			return err
		}
	}
	return nil
}

// hear does what the worker says.
func (s *session) hear(ctx context.Context, r *outriggerv1.WorkRequest) error {
	switch say := r.GetSay().(type) {
	case *outriggerv1.WorkRequest_Open:
		return invalid(&FieldError{"open", "comes once, and first"})
	case *outriggerv1.WorkRequest_More:
		if s.more+len(s.held)+int(say.More) > maxHeld {
			return invalid(&FieldError{"more", fmt.Sprintf("the worker would hold and ask for more than %d tasks; end some first", maxHeld)})
		}
		s.more += int(say.More)
	case *outriggerv1.WorkRequest_Stop:
		s.noMore, s.leaves = true, true
	case *outriggerv1.WorkRequest_Complete:
		if problem := s.e.settings.Load().checkResult(say.Complete.GetResult()); problem != nil {
			return s.refuse(say.Complete.GetLease(), invalid(problem.within("complete")))
		}
		return s.conclude(ctx, say.Complete.GetLease(), func(*store.Job) plan { return plan{as: Done} }, &outriggerv1.TaskResult{Payload: say.Complete.GetResult()})
	case *outriggerv1.WorkRequest_Fail:
		if problem := checkFailure(say.Fail); problem != nil {
			return s.refuse(say.Fail.GetLease(), invalid(problem.within("fail")))
		}
		return s.conclude(ctx, say.Fail.GetLease(), func(j *store.Job) plan { return s.e.failed(j, say.Fail) }, nil)
	}
	return nil
}

func (s *session) refuse(l *outriggerv1.TaskLease, err error) error {
	return s.send(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Ended{Ended: &outriggerv1.EndedWork{Lease: l, Refused: refusalOf(err)}}})
}

// conclude keeps how a task ended, beside the loop, so that many are kept together.
func (s *session) conclude(ctx context.Context, l *outriggerv1.TaskLease, become func(*store.Job) plan, result *outriggerv1.TaskResult) error {
	id, err := ParseID(l.GetId())
	if err != nil {
		return s.refuse(l, badID("lease.id", l.GetId()))
	}
	h := s.held[id]
	if h == nil || h.Attempt != int(l.GetAttempt()) || h.ending {
		return s.refuse(l, asStatus(store.ErrLost))
	}
	h.ending = true
	j := h.Job
	s.beside.Go(func() {
		p, err := s.e.conclude(ctx, &j, become(&j), result)
		if err == nil {
			s.e.record(&j, p, j.StartedAt.Sub(j.RunAt), s.e.now().Sub(j.StartedAt))
		}
		select {
		case s.ended <- concluded{l, id, p, err}:
		case <-s.over:
		}
	})
	return nil
}

// afterwards are the states of jobs after an attempt.
var afterwards = map[Outcome]outriggerv1.TaskState{
	Done: outriggerv1.TaskState_COMPLETED, Retried: outriggerv1.TaskState_RETRYABLE, GivenUp: outriggerv1.TaskState_FAILED,
	Snoozed: outriggerv1.TaskState_SCHEDULED, Cancelled: outriggerv1.TaskState_CANCELLED,
}

// answer tells the worker how its report was kept. What the store could not keep
// it still holds, and may report again.
func (s *session) answer(c concluded) error {
	if c.err != nil && !errors.Is(c.err, store.ErrLost) && !errors.Is(c.err, store.ErrNotFound) {
		if h := s.held[c.id]; h != nil {
			h.ending = false
		}
		return s.refuse(c.lease, asStatus(c.err))
	}
	s.forget(c.id)
	if c.err != nil {
		return s.refuse(c.lease, asStatus(store.ErrLost))
	}
	return s.send(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Ended{Ended: &outriggerv1.EndedWork{Lease: c.lease, State: afterwards[c.plan.as]}}})
}

func (s *session) forget(id int64) {
	delete(s.held, id)
	s.e.sessions.drop(id, s)
}

// renew renews the leases of what is held, and tells of those that are over and of
// tasks that were cancelled.
func (s *session) renew(ctx context.Context) error {
	settings, now := s.e.settings.Load(), s.e.now()
	var ids []int64
	var held []store.Held
	var until []time.Time
	for id, h := range s.held {
		if h.ending {
			continue
		}
		k := settings.Kinds[h.Kind]
		at := now.Add(max(k.Lease, time.Second))
		if latest := s.e.latest(&h.Job, k); latest.Before(at) {
			at = latest
		}
		if !at.After(now) { // its time is up: whoever leases it next judges it
			if err := s.lost(id); err != nil {
				return err
			}
			continue
		}
		ids, held, until = append(ids, id), append(held, store.Held{ID: id, Attempt: h.Attempt}), append(until, at)
	}
	if len(held) == 0 {
		return nil
	}
	renewed, err := s.kept.Renew(ctx, held, until)
	for n, id := range ids {
		h := s.held[id]
		switch {
		case err != nil && now.After(h.until): // the store is down for longer than the lease
			if err := s.lost(id); err != nil {
				return err
			}
		case err != nil:
		case renewed[n].Until.IsZero():
			if err := s.lost(id); err != nil {
				return err
			}
		default:
			h.until = renewed[n].Until
			if renewed[n].CancelRequested && !h.cancelled {
				h.cancelled, h.CancelRequested = true, true
				if err := s.send(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Cancel{Cancel: h.name()}}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (h *hold) name() *outriggerv1.TaskLease {
	return &outriggerv1.TaskLease{Id: FormatID(h.ID), Attempt: uint32(h.Attempt)}
}

// lost tells the worker that a lease is over.
func (s *session) lost(id int64) error {
	l := s.held[id].name()
	s.forget(id)
	return s.send(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Lost{Lost: l}})
}

// streamEnded is why tasks fail whose worker's stream ended.
const streamEnded = "the worker's stream ended before the task did"

// giveBackMost is how many tasks are given back at a time.
const giveBackMost = 32

// giveBack ends the attempts of what is still held: nobody can report it any more.
func (s *session) giveBack(ctx context.Context) {
	var all sync.WaitGroup
	places := make(chan struct{}, giveBackMost)
	for id, h := range s.held {
		s.forget(id)
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			p := decide(&h.Job, s.e.settings.Load().Kinds[h.Kind], failure{why: streamEnded}, s.e.now(), s.e.options.Random())
			switch {
			case h.CancelRequested:
				p = stopped(cancelledWhy)
			case s.e.isStopping():
				p = putOff(s.e.now(), Returned, stoppedWhy)
			}
			p = s.e.finish(ctx, &h.Job, p, nil)
			s.e.record(&h.Job, p, h.StartedAt.Sub(h.RunAt), s.e.now().Sub(h.StartedAt))
		})
	}
	all.Wait()
}
