package guard

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// finishTimeout is how long a stream that is to end may take to send what is
// queued.
const finishTimeout = time.Second

// stream is one Guard stream: a goroutine that writes what is queued, all of it
// in one message, and one that reads answers.
type stream struct {
	api    outriggerv1.ResilienceServiceClient
	ctx    context.Context // the stream's own: it outlives whoever opened it
	cancel context.CancelFunc
	wake   chan struct{}

	mu        sync.Mutex
	queue     []*operation
	cancels   []uint64
	pending   map[uint64]*operation // by tag
	latest    uint64                // tag
	finishing bool
	err       *Error // why it is over; nil: it is not
}

func newStream(api outriggerv1.ResilienceServiceClient) *stream {
	s := &stream{api: api, wake: make(chan struct{}, 1), pending: make(map[uint64]*operation)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// alive reports whether operations can be sent.
func (s *stream) alive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil
}

// ask sends an operation and waits for what it comes to. r is what the permit
// is asked for with.
func (s *stream) ask(ctx context.Context, op *operation, r *Request) (*Permit, error) {
	if err := s.enqueue(op, true); err != nil {
		op.free()
		return nil, err
	}
	var a *outriggerv1.GuardAnswer
	select {
	case a = <-op.answered:
	case <-ctx.Done():
		if s.abandon(op) {
			return nil, fromContext(ctx.Err())
		}
		a = <-op.answered // it came in that very moment
	}
	if a == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, s.broke()
	}
	op.free()
	if a.GetRefusal() != nil {
		return nil, fromRefusal(a.GetRefusal())
	}
	if a.GetPermit() == nil {
		return nil, nil
	}
	return newPermit(s, r, a.GetPermit()), nil
}

// broke returns why the stream is over, as an error of the caller's own. s.mu is
// held.
func (s *stream) broke() error {
	e := *s.err
	return &e
}

// tell sends an operation that has no answer.
func (s *stream) tell(op *operation) {
	if s.enqueue(op, false) != nil {
		op.free()
	}
}

func (s *stream) enqueue(op *operation, answered bool) error {
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return s.broke()
	}
	tag := uint64(0)
	if answered {
		s.latest++
		tag = s.latest
		s.pending[tag] = op
	}
	op.setTag(tag)
	s.queue = append(s.queue, op)
	s.mu.Unlock()
	s.nudge()
	return nil
}

func (s *stream) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// abandon says that nobody waits for an operation's answer any more; false: it
// is there already.
func (s *stream) abandon(op *operation) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending[op.tag] != op {
		return false
	}
	op.abandoned = true
	s.cancels = append(s.cancels, op.tag)
	s.nudge()
	return true
}

// finish sends what is queued and ends the stream.
func (s *stream) finish() {
	s.mu.Lock()
	s.finishing = true
	s.mu.Unlock()
	s.nudge()
	timer := time.AfterFunc(finishTimeout, s.cancel)
	context.AfterFunc(s.ctx, func() { timer.Stop() })
}

// run serves the stream until it is over.
func (s *stream) run() {
	defer s.cancel()
	rpc, err := s.api.Guard(s.ctx)
	if err != nil {
		s.fail(err)
		return
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write(rpc)
	}()
	s.fail(s.read(rpc))
	s.cancel()
	<-written
}

// write sends what is queued until the stream is over.
func (s *stream) write(rpc outriggerv1.ResilienceService_GuardClient) {
	var queue, quiet []*operation // quiet ones have no answer
	var b batch
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		}
		// Who was woken by the same answers gets to queue as well.
		runtime.Gosched()
		s.mu.Lock()
		queue, s.queue = s.queue, queue[:0]
		n := min(len(s.cancels), maxOperations)
		b.message.Cancels = append(b.message.Cancels, s.cancels[:n]...)
		if s.cancels = append(s.cancels[:0], s.cancels[n:]...); len(s.cancels) > 0 {
			s.nudge()
		}
		finishing := s.finishing && len(s.cancels) == 0
		s.mu.Unlock()
		for sent := 0; sent < len(queue) || b.operations() > 0; {
			for sent < len(queue) && b.fits(queue[sent]) {
				if queue[sent].tag == 0 {
					quiet = append(quiet, queue[sent])
				}
				b.add(queue[sent])
				sent++
			}
			err := send(rpc, &b)
			// Those with an answer may be others' again by now.
			b.reset()
			for _, op := range quiet {
				op.free()
			}
			quiet = quiet[:0]
			if err != nil {
				return // read learns why
			}
		}
		clear(queue)
		if finishing {
			_ = rpc.CloseSend() // its error is always nil
			return
		}
	}
}

// send writes a batch, which is encoded at once: its operations may be used
// again when it returns.
func send(rpc outriggerv1.ResilienceService_GuardClient, b *batch) error {
	var encoded grpc.PreparedMsg
	if err := encoded.Encode(rpc, &b.message); err != nil {
		return err
	}
	return rpc.SendMsg(&encoded)
}

// read hands answers to who waits for them, and returns why the stream is over.
func (s *stream) read(rpc outriggerv1.ResilienceService_GuardClient) error {
	for {
		m, err := rpc.Recv()
		if err != nil {
			return err
		}
		s.mu.Lock()
		for _, a := range m.GetAnswers() {
			op := s.pending[a.GetTag()]
			if op == nil {
				continue // an agent that answers what nobody asked
			}
			delete(s.pending, a.GetTag())
			if !op.abandoned {
				op.answered <- a
				continue
			}
			op.free()
			if a.GetPermit() != nil {
				// It was on its way when its caller gave up.
				back := (&Permit{id: a.GetPermit().GetId()}).report(Outcome{Code: codes.Canceled, Final: true})
				back.setTag(0)
				s.queue = append(s.queue, back)
				s.nudge()
			}
		}
		s.mu.Unlock()
	}
}

// fail ends the stream, and with it every operation under way.
func (s *stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = errClosed; !errors.Is(err, io.EOF) && !s.finishing {
		s.err = fromStatus(err)
	}
	for tag, op := range s.pending {
		delete(s.pending, tag)
		if !op.abandoned {
			op.answered <- nil
		}
	}
}
