package forward

import (
	"context"
	"errors"
	"io"

	"github.com/outrigger-rpc/outrigger/policy"
)

// moved counts bytes of the exchange.
func (x *exchange) moved(count *uint64, n int) {
	if n <= 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	*count += uint64(n)
	if !x.over {
		x.call.Touch(x.server.now())
	}
}

// overflowed notes that the request outgrew what is kept of it.
func (x *exchange) overflowed() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.over {
		x.call.Overflowed()
	}
}

// answerBody ends the exchange when the answer ends.
type answerBody struct {
	exchange *exchange
	ctx      context.Context
	body     io.ReadCloser
	result   policy.Result
}

// Read implements io.Reader.
func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.exchange.moved(&b.exchange.bytesDown, n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.exchange.end(b.result, "")
	default:
		b.exchange.end(b.broken(err))
	}
	return n, err
}

// broken says how an answer ended that did not end well.
func (b *answerBody) broken(err error) (policy.Result, string) {
	var refused refusedError
	switch {
	case errors.As(context.Cause(b.ctx), &refused):
		return policy.Refused(refused.Refusal), refused.Message
	case b.exchange.in.Context().Err() != nil:
		return policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "the caller closed its connection"
	}
	return policy.Result{Code: policy.ConnectionLost.Code(), Reason: policy.ConnectionLost}, "the answer broke off: " + err.Error()
}

// Close implements io.Closer.
func (b *answerBody) Close() error {
	if b.exchange.in.Context().Err() != nil || context.Cause(b.ctx) != nil {
		b.exchange.end(b.broken(context.Canceled))
	}
	err := b.body.Close()
	b.exchange.end(b.result, "")
	return err
}

// upgradedBody is the connection after 101 Switching Protocols.
type upgradedBody struct {
	*answerBody
	writer io.Writer
}

// Write implements io.Writer.
func (b *upgradedBody) Write(p []byte) (int, error) {
	n, err := b.writer.Write(p)
	b.exchange.moved(&b.exchange.bytesUp, n)
	return n, err
}
