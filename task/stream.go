package task

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// stream is one Work stream to the agent: what came by it is renewed by the agent
// for as long as it is open.
type stream struct {
	running *running
	rpc     grpc.BidiStreamingClient[outriggerv1.WorkRequest, outriggerv1.WorkResponse]
	end     context.CancelFunc
	ended   chan struct{} // closed when nothing more comes
	err     error         // why; set before ended is closed

	sending sync.Mutex // one Send at a time

	mu      sync.Mutex
	waiting map[lease]chan *outriggerv1.EndedWork
}

// session does tasks by one stream until it breaks or ctx ends. In the latter case
// the stream stays open for what is under way, until close.
func (r *running) session(ctx context.Context) error {
	streamed, end := context.WithCancel(context.Background())
	stopOpening := context.AfterFunc(ctx, end) // an agent that is not there must not keep Run
	rpc, err := r.api.Work(streamed)
	if err == nil {
		err = rpc.Send(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Open{Open: &outriggerv1.OpenWork{Kinds: r.kinds, Worker: r.name}}})
	}
	if err != nil || !stopOpening() {
		if errors.Is(err, io.EOF) {
			_, err = rpc.Recv() // a Send that fails says nothing; this does
		}
		end()
		return err
	}
	s := &stream{running: r, rpc: rpc, end: end, ended: make(chan struct{}), waiting: make(map[lease]chan *outriggerv1.EndedWork)}
	r.mu.Lock()
	r.stream = s
	free := r.free
	r.mu.Unlock()
	go s.receive()
	if free > 0 {
		s.more(uint32(free))
	}
	select {
	case <-ctx.Done():
		s.send(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Stop{Stop: &outriggerv1.StopWork{}}})
		return nil
	case <-s.ended:
	}
	r.mu.Lock()
	r.stream = nil
	r.mu.Unlock()
	return s.err
}

// receive takes what the agent says until the stream ends.
func (s *stream) receive() {
	defer close(s.ended)
	defer s.end()
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
			s.running.cancel(lease{say.Cancel.GetId(), say.Cancel.GetAttempt()}, ErrCancelled)
		case *outriggerv1.WorkResponse_Lost:
			s.running.cancel(lease{say.Lost.GetId(), say.Lost.GetAttempt()}, ErrLost)
		case *outriggerv1.WorkResponse_Ended:
			s.answer(say.Ended)
		}
	}
}

func (s *stream) answer(e *outriggerv1.EndedWork) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := lease{e.GetLease().GetId(), e.GetLease().GetAttempt()}
	if waits := s.waiting[l]; waits != nil {
		delete(s.waiting, l)
		waits <- e // it has room for one
	}
}

// tell says how a task ended, and reports whether the agent answered; a refusal is
// an answer.
func (s *stream) tell(l lease, complete *outriggerv1.CompleteTaskRequest, fail *outriggerv1.FailTaskRequest) (refused error, answered bool) {
	waits := make(chan *outriggerv1.EndedWork, 1)
	s.mu.Lock()
	s.waiting[l] = waits
	s.mu.Unlock()
	request := &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Complete{Complete: complete}}
	if fail != nil {
		request.Say = &outriggerv1.WorkRequest_Fail{Fail: fail}
	}
	s.send(request)
	select {
	case e := <-waits:
		if r := e.GetRefused(); r != nil {
			return status.Error(codes.Code(r.GetCode()), r.GetMessage()), true
		}
		return nil, true
	case <-s.ended:
		return nil, false
	}
}

// more lets n more tasks come.
func (s *stream) more(n uint32) {
	s.send(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_More{More: n}})
}

// send says something. That the stream broke is receive's to tell.
func (s *stream) send(request *outriggerv1.WorkRequest) {
	s.sending.Lock()
	defer s.sending.Unlock()
	if err := s.rpc.Send(request); err != nil {
		s.end()
	}
}

// close ends the stream, and waits until nothing more comes.
func (s *stream) close() {
	s.sending.Lock()
	_ = s.rpc.CloseSend() // the stream is at its end either way
	s.sending.Unlock()
	s.end()
	<-s.ended
}
