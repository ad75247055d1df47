package tasks

import (
	"context"
	"errors"
	"io"
	"sync"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// streamMost is how many submits of one stream are under way at once: they share
// commits, and the next one waits for one of them.
const streamMost = 256

// StreamTasks accepts those that receive returns, until it returns io.EOF, and
// sends an answer for each; send is called by one goroutine at a time. A request
// that comes together with an error is refused with it.
func (e *Executor) StreamTasks(ctx context.Context, receive func() (*outriggerv1.StreamTasksRequest, error), send func(*outriggerv1.StreamTasksResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var submits sync.WaitGroup
	var mu sync.Mutex // guards send and failed
	var failed error
	answer := func(a *outriggerv1.StreamTasksResponse) {
		mu.Lock()
		defer mu.Unlock()
		if failed == nil {
			if failed = send(a); failed != nil {
				cancel()
			}
		}
	}
	places := make(chan struct{}, streamMost)
	for ctx.Err() == nil {
		r, err := receive()
		if r == nil && err != nil {
			submits.Wait()
			mu.Lock()
			defer mu.Unlock()
			if failed != nil || errors.Is(err, io.EOF) {
				return failed
			}
			return err
		}
		if err != nil {
			answer(&outriggerv1.StreamTasksResponse{Tag: r.GetTag(), Refused: refusalOf(err)})
			continue
		}
		places <- struct{}{}
		submits.Go(func() {
			defer func() { <-places }()
			submitted, err := e.SubmitTask(ctx, r.GetSubmit())
			if err != nil {
				answer(&outriggerv1.StreamTasksResponse{Tag: r.GetTag(), Refused: refusalOf(err)})
				return
			}
			answer(&outriggerv1.StreamTasksResponse{Tag: r.GetTag(), Submitted: submitted})
		})
	}
	submits.Wait()
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return failed
	}
	return asStatus(ctx.Err())
}
