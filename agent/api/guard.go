package api

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	// maxBatch bounds the operations of a message, and the answers of one.
	maxBatch = 1024
	// maxUnread bounds the answers that a stream's client has not taken: its
	// operations are not read until it does.
	maxUnread = 4 * maxBatch
)

// Guard carries many permits. One goroutine reads and handles batches, this one
// writes answers: those of a batch together, and those of who waited as they
// come.
func (s *resilienceService) Guard(stream outriggerv1.ResilienceService_GuardServer) error {
	t := s.server.permits
	h, err := t.join()
	if err != nil {
		return err
	}
	defer t.leave(h)
	ended := make(chan error, 1)
	s.server.readers.Go(func() { ended <- t.read(h, stream) })
	return t.write(h, stream, ended)
}

// read handles batches until the stream or the client's patience ends.
func (t *permits) read(h *holder, stream outriggerv1.ResilienceService_GuardServer) (err error) {
	defer func() {
		// The interceptor that recovers requests does not see this goroutine.
		if p := recover(); p != nil {
			err = t.server.recovered(stream.Context(), p)
		}
	}()
	var m outriggerv1.GuardRequest
	var r round
	for {
		if err := stream.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := checkBatch(&m); err != nil {
			return err
		}
		if !h.handle(&r, &m) {
			return nil // the other side of the stream is over
		}
		t.wake(&r)
	}
}

// checkBatch says what is wrong with a batch that can't be answered under a tag.
func checkBatch(m *outriggerv1.GuardRequest) error {
	n := len(m.GetReports()) + len(m.GetRenewals()) + len(m.GetAcquires()) + len(m.GetCancels())
	if n > maxBatch {
		return status.Errorf(codes.InvalidArgument, "a message may have %d operations; this one has %d", maxBatch, n)
	}
	for i, a := range m.GetAcquires() {
		if a.GetTag() == 0 {
			return status.Errorf(codes.InvalidArgument, "acquires[%d].tag is 0; want a number that its answer can have", i)
		}
	}
	return nil
}

// handle does what a batch asks for; false: the stream is over.
func (h *holder) handle(r *round, m *outriggerv1.GuardRequest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.out) >= maxUnread && !h.gone {
		h.room.Wait()
	}
	if h.gone {
		return false
	}
	r.now = h.table.now()
	for _, q := range m.GetReports() {
		if wrong := checkReport(q.GetRequest()); wrong != "" {
			h.answer(q.GetTag(), nil, answer{refusal: mistake(policy.InvalidArgument, wrong)})
			continue
		}
		h.report(r, q.GetRequest(), q.GetTag(), nil, "")
	}
	for _, q := range m.GetRenewals() {
		if wrong := checkLease(q.GetLease()); wrong != "" {
			h.answer(q.GetTag(), nil, answer{refusal: mistake(policy.InvalidArgument, wrong)})
			continue
		}
		h.renew(r, q)
	}
	for _, tag := range m.GetCancels() {
		h.cancel(r, tag)
	}
	for _, q := range m.GetAcquires() {
		if wrong := checkAcquire(q.GetRequest()); wrong != "" {
			h.answer(q.GetTag(), nil, answer{refusal: mistake(policy.InvalidArgument, wrong)})
			continue
		}
		h.acquire(r, q.GetRequest(), q.GetTag(), nil, "")
	}
	if len(h.out) > 0 || h.table.draining.Load() {
		h.nudge()
	}
	return true
}

// write sends answers until the stream ends, or the agent does and no permit is
// out.
func (t *permits) write(h *holder, stream outriggerv1.ResilienceService_GuardServer, ended <-chan error) error {
	var batch []*outriggerv1.GuardAnswer
	var encoded grpc.PreparedMsg
	send := func() error {
		for batch = h.take(batch); len(batch) > 0; batch = h.take(batch) {
			for rest := batch; len(rest) > 0; {
				n := min(len(rest), maxBatch)
				// Encoded at once, so that the answers can be used again.
				if err := encoded.Encode(stream, &outriggerv1.GuardResponse{Answers: rest[:n]}); err != nil {
					return fmt.Errorf("encoding answers: %w", err)
				}
				if err := stream.SendMsg(&encoded); err != nil {
					return err
				}
				rest = rest[n:]
			}
		}
		return nil
	}
	for {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
			return send()
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-h.wake:
		}
		if err := send(); err != nil {
			return err
		}
		if t.draining.Load() && h.idle() {
			return refusalError(t.drainRefusal(""))
		}
	}
}

// idle reports whether no permit is out and no answer is due.
func (h *holder) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busy() == 0 && len(h.out) == 0
}
