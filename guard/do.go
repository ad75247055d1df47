package guard

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
)

// Do does the work under a permit, and again as often as the policy says; the
// error that it returns is the last attempt's, or an *Error of the agent's. The
// context that work gets ends with the attempt's time. An error that work
// returns is reported as OutcomeOf says; an *AttemptError says more.
func (c *Client) Do(ctx context.Context, r Request, work func(context.Context, *Permit) error) error {
	permit, err := c.Acquire(ctx, r)
	if err != nil {
		return err
	}
	for {
		outcome, failed := permit.do(ctx, work)
		if failed == nil {
			permit.Done(nil)
			return nil
		}
		if err := ctx.Err(); err != nil {
			permit.Done(err) // whatever the work made of it
			return failed
		}
		next, err := permit.Report(ctx, outcome)
		if next != nil {
			permit = next
			continue
		}
		var refused *Error
		if errors.As(err, &refused) && refused.Reason != "" && permit.stream.alive() {
			refused.Cause = failed
			return refused
		}
		return failed // nothing follows, or the agent is gone
	}
}

// do makes one attempt. Work that panics is reported before the panic goes on.
func (p *Permit) do(ctx context.Context, work func(context.Context, *Permit) error) (Outcome, error) {
	end := p.Deadline
	if end.IsZero() || !p.TryDeadline.IsZero() && p.TryDeadline.Before(end) {
		end = p.TryDeadline
	}
	if !end.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end)
		defer cancel()
	}
	finished := false
	defer func() {
		if !finished {
			p.Done(errPanicked)
		}
	}()
	err := work(ctx, p)
	finished = true
	outcome := outcomeOf(err)
	if outcome.Code == codes.Unknown && ctx.Err() != nil {
		outcome.Code = codeOf(ctx.Err()) // work that was cut off may call it anything
	}
	return outcome, err
}

var errPanicked = errors.New("the work panicked")

// AttemptError is an error of work with what the agent should know of it.
type AttemptError struct {
	// Err is the error; its code is reported unless Outcome has one.
	Err error
	// Outcome is what is reported.
	Outcome Outcome
}

// Error returns the error's message.
func (e *AttemptError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *AttemptError) Unwrap() error { return e.Err }

func outcomeOf(err error) Outcome {
	var a *AttemptError
	if !errors.As(err, &a) {
		return OutcomeOf(err)
	}
	o := a.Outcome
	if o.Code == 0 {
		o.Code = codeOf(a.Err)
	}
	return o
}
