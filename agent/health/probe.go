package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// Outcome is what one check came to.
type Outcome uint8

// The outcomes. All but Passed and Unsupported speak against the endpoint.
const (
	// Passed: it is well.
	Passed Outcome = iota
	// Failed: it answered, and not as wanted.
	Failed
	// Unreachable: there was no connection, or it broke.
	Unreachable
	// TimedOut: there was no answer in time.
	TimedOut
	// Unsupported: it can't be asked this way; it counts as well, with a
	// warning.
	Unsupported

	outcomes = int(iota)
)

// String returns the outcome's name in metrics.
func (o Outcome) String() string {
	switch o {
	case Passed:
		return "passed"
	case Failed:
		return "failed"
	case Unreachable:
		return "unreachable"
	case TimedOut:
		return "timed_out"
	case Unsupported:
		return "unsupported"
	}
	return "unknown"
}

// result is an outcome and its cause in a few plain words, empty when it
// passed.
type result struct {
	outcome Outcome
	cause   string
}

func (r result) ok() bool { return r.outcome == Passed || r.outcome == Unsupported }

func failed(format string, args ...any) result {
	return result{Failed, fmt.Sprintf(format, args...)}
}

// job is one check, as it is when it begins.
type job struct {
	entry     *entry
	address   string
	transport Transport
	settings  Settings
	link      *link // a connection that is kept for the endpoint; nil: none
}

// tlsError is a handshake that failed, as opposed to a connect.
type tlsError struct{ error }

func (e tlsError) Unwrap() error { return e.error }

// errPlaintext is for a TLS check of what speaks none.
var errPlaintext = errors.New("the service has no tls block")

// connect opens a connection to the endpoint. It speaks TLS, offering protocols,
// where the service does; without protocols it never does.
func (j *job) connect(ctx context.Context, protocols ...string) (net.Conn, error) {
	nc, err := j.transport.Dial(ctx, j.address)
	if err != nil || len(protocols) == 0 {
		return nc, err
	}
	config, err := j.transport.TLS(j.address, protocols...)
	if err == nil && config != nil {
		secure := tls.Client(nc, config)
		if err = secure.HandshakeContext(ctx); err == nil {
			return secure, nil
		}
	}
	if err != nil {
		nc.Close()
		return nil, tlsError{err}
	}
	return nc, nil
}

// askTCP checks that the endpoint accepts connections.
func askTCP(ctx context.Context, c *Checker, j *job) result {
	nc, err := j.connect(ctx)
	if err != nil {
		return c.broken(j, err)
	}
	nc.Close()
	return result{}
}

// askTLS checks that the endpoint's handshake succeeds.
func askTLS(ctx context.Context, c *Checker, j *job) result {
	nc, err := j.connect(ctx, protocolHTTP2, protocolHTTP11)
	if err != nil {
		return c.broken(j, err)
	}
	defer nc.Close()
	if _, secure := nc.(*tls.Conn); !secure {
		return result{Unsupported, errPlaintext.Error()}
	}
	return result{}
}

// broken says in a few words why a connection failed, or what broke it.
func (c *Checker) broken(j *job, err error) result {
	var secure tlsError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return result{TimedOut, fmt.Sprintf("no answer within %v", short(j.settings.Timeout))}
	case errors.As(err, &secure):
		return result{Unreachable, clip(c.explainTLS(secure.error))}
	case errors.Is(err, syscall.ECONNREFUSED):
		return result{Unreachable, "connection refused"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return result{Unreachable, "the endpoint closed the connection without an answer"}
	case errors.As(err, &op):
		return result{Unreachable, clip(op.Err.Error())}
	}
	return result{Unreachable, clip(err.Error())}
}

// short writes whole minutes and hours without zeros behind them.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// clip makes text that an endpoint chose fit for a line of a table: short, on
// one line.
func clip(text string) string {
	const most = 160
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
