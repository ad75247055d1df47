package task

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// maxMore is how many more tasks the API lets one message ask for.
const maxMore = 1000

// stream is one Work stream to the agent: what came by it is renewed by the agent
// for as long as it is open.
type stream struct {
	running *running
	rpc     grpc.BidiStreamingClient[outriggerv1.WorkRequest, outriggerv1.WorkResponse]
	end     context.CancelFunc
	ended   chan struct{} // closed when nothing more comes
	err     error         // why; set before ended is closed

	wanted  atomic.Int64 // tasks that may come, and the agent has not been told
	sending sync.Mutex   // one Send at a time

	mu      sync.Mutex
	waiting map[lease]chan *outriggerv1.EndedWork
}

// session does tasks by one stream until it breaks or ctx ends. In the latter case
// the stream stays open for what is under way: drain ends it.
func (r *running) session(ctx context.Context) error {
	streamed, end := context.WithCancel(context.Background())
	stopOpening := context.AfterFunc(ctx, end) // an agent that is not there must not keep Run
	rpc, err := r.api.Work(streamed, largeAnswers)
	if err == nil {
		err = rpc.Send(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Open{Open: &outriggerv1.OpenWork{Kinds: r.kinds, Worker: r.name}}})
		if errors.Is(err, io.EOF) {
			_, err = rpc.Recv() // a Send that fails says nothing; this does
		}
	}
	if err != nil || !stopOpening() {
		end()
		return err
	}
	s := &stream{running: r, rpc: rpc, end: end, ended: make(chan struct{}), waiting: make(map[lease]chan *outriggerv1.EndedWork)}
	r.mu.Lock()
	r.stream = s
	free := r.free
	r.mu.Unlock()
	go s.receive()
	s.more(free)
	select {
	case <-ctx.Done():
		return nil
	case <-s.ended:
		return s.err
	}
}

// receive takes what the agent says until the stream ends.
func (s *stream) receive() {
	defer close(s.ended)
	defer s.running.closed(s)
	defer s.end()
	if headers, err := s.rpc.Header(); err == nil && headers != nil {
		s.running.reached()
	}
	for {
		message, err := s.rpc.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = status.Error(codes.Unavailable, "the agent ended the stream")
			}
			s.err = err
			return
		}
		switch say := message.GetSay().(type) {
		case *outriggerv1.WorkResponse_Task:
			s.running.start(s, say.Task)
		case *outriggerv1.WorkResponse_Cancel:
			s.running.cancel(leaseOf(say.Cancel), ErrCancelled)
		case *outriggerv1.WorkResponse_Lost:
			s.running.cancel(leaseOf(say.Lost), ErrLost)
		case *outriggerv1.WorkResponse_Ended:
			s.answer(say.Ended)
		}
	}
}

func (s *stream) answer(e *outriggerv1.EndedWork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := leaseOf(e.GetLease())
	if waits := s.waiting[l]; waits != nil {
		delete(s.waiting, l)
		waits <- e // it has room for one
	}
}

// isOpen reports whether the stream has not ended yet.
func (s *stream) isOpen() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// tell says how a task ended that came by this stream, and reports whether the agent
// answered; a refusal is an answer. The agent has as long for it as the stream is
// open.
func (s *stream) tell(l lease, request *outriggerv1.WorkRequest) (answered bool, refused error) {
	waits := make(chan *outriggerv1.EndedWork, 1)
	s.mu.Lock()
	s.waiting[l] = waits
	s.mu.Unlock()
	s.send(request)
	var e *outriggerv1.EndedWork
	select {
	case e = <-waits:
	case <-s.ended:
		select {
		case e = <-waits: // it was the last thing that came
		default:
			return false, nil
		}
	}
	if r := e.GetRefused(); r != nil {
		return true, status.Error(codes.Code(r.GetCode()), r.GetMessage())
	}
	return true, nil
}

// more lets n more tasks come. Where several say so at once, one message does.
func (s *stream) more(n int) {
	s.wanted.Add(int64(n))
	s.sending.Lock()
	defer s.sending.Unlock()
	for n := s.wanted.Swap(0); n > 0; n -= maxMore {
		s.sendLocked(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_More{More: uint32(min(n, maxMore))}})
	}
}

// send says something. That the stream broke is receive's to tell.
func (s *stream) send(request *outriggerv1.WorkRequest) {
	s.sending.Lock()
	defer s.sending.Unlock()
	s.sendLocked(request)
}

func (s *stream) sendLocked(request *outriggerv1.WorkRequest) {
	if err := s.rpc.Send(request); err != nil {
		s.end()
	}
}

// close ends the stream, and waits until nothing more comes.
func (s *stream) close() {
	s.end()
	<-s.ended
}
