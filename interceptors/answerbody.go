package interceptors

import (
	"errors"
	"io"
	"math/rand/v2"

	"github.com/outrigger-rpc/outrigger/policy"
)

// answerBody is the body of an answer. Its end, or its reader's, ends the call.
type answerBody struct {
	exchange *exchange
	attempt  *attempt
	body     io.ReadCloser
	result   policy.Result // what the answer's head came to
	stream   bool
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if b.stream && n > 0 {
		b.touch()
	}
	if err != nil {
		err = b.over(err)
	}
	return n, err
}

// Close implements io.Closer. Who closes a body early has seen enough: the call
// ended as its head says.
func (b *answerBody) Close() error {
	_ = b.over(io.EOF)
	return b.body.Close()
}

// touch tells the core that bytes moved.
func (b *answerBody) touch() {
	x := b.exchange
	x.mu.Lock()
	if b.attempt.lingers {
		x.call.Touch(x.client.now())
	}
	x.mu.Unlock()
}

// over ends the call, once, and returns what the reader sees.
func (b *answerBody) over(err error) error {
	x, a := b.exchange, b.attempt
	x.mu.Lock()
	if !a.lingers {
		if x.tail != nil && !errors.Is(err, io.EOF) {
			err = x.tail
		}
		x.mu.Unlock()
		return err
	}
	a.lingers = false
	now := x.client.now()
	if !errors.Is(err, io.EOF) {
		err = b.broken(err, now)
	}
	x.call.Settle(&a.core, now, b.result, rand.Uint64())
	x.result, x.ended = b.result, now
	x.mu.Unlock()
	a.sever()
	x.end()
	return err
}

// broken judges a body that ended before its end. x.mu is held.
func (b *answerBody) broken(err error, now policy.Instant) error {
	x, a := b.exchange, b.attempt
	refusal := a.refusal
	switch {
	case refusal != nil:
	case x.ctx.Err() != nil:
		if refusal = x.late(now); refusal == nil {
			b.result = policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}
			return err
		}
	default:
		b.result = policy.Result{Code: policy.ConnectionLost.Code(), Reason: policy.ConnectionLost}
		return err
	}
	b.result = policy.Refused(refusal)
	x.refusalEvent(refusal)
	x.tail = &requestError{refusal: refusal, cause: err}
	return x.tail
}

// upgradedBody is an upgraded connection: it is written to as well.
type upgradedBody struct {
	*answerBody
	io.Writer
}

// Write implements io.Writer.
func (b *upgradedBody) Write(p []byte) (int, error) {
	n, err := b.Writer.Write(p)
	b.touch()
	return n, err
}
