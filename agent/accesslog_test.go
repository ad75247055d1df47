package agent

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func TestAccessLogModes(t *testing.T) {
	ok := policy.Record{Service: "greeter", Method: "/a.B/Good", End: time.Second}
	failed := policy.Record{Service: "greeter", Method: "/a.B/Bad", Code: policy.NotFound, Message: "no user called ada@example.org", End: time.Second}
	for _, test := range []struct {
		name         string
		mode         accessLogMode
		good, failed bool
	}{
		{"off", accessLogOff, false, false},
		{"errors", accessLogErrors, false, true},
		{"all", accessLogAll, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log logBuffer
			l := newAccessLog(log.logger(), time.Now(), test.mode)
			l.CallEnded(&ok)
			l.CallEnded(&failed)
			l.close()
			if got := strings.Contains(log.String(), "/a.B/Good"); got != test.good {
				t.Errorf("the good call is logged: %v, want %v", got, test.good)
			}
			if got := strings.Contains(log.String(), "/a.B/Bad"); got != test.failed {
				t.Errorf("the failed call is logged: %v, want %v", got, test.failed)
			}
			if strings.Contains(log.String(), "ada@example.org") {
				t.Error("an upstream's message is in the log")
			}
		})
	}
}

func TestAccessLogLineExplainsARefusal(t *testing.T) {
	var log logBuffer
	l := newAccessLog(log.logger(), time.Now(), accessLogErrors)
	l.CallEnded(&policy.Record{
		Service: "greeter", Method: "/a.B/C", Endpoint: "10.0.0.1:50051", Peer: "127.0.0.1:9",
		Code: policy.Unavailable, Reason: policy.BreakerOpen, Message: "the circuit breaker of greeter is OPEN",
		Start: time.Second, End: time.Second + 1500*time.Microsecond, Attempts: 2, RequestBytes: 3, ResponseBytes: 4, TraceID: "abc", TaskID: "t1",
	})
	l.close()
	for _, want := range []string{
		"level=WARN", "msg=call", "service=greeter", "method=/a.B/C", "code=UNAVAILABLE", "reason=BREAKER_OPEN",
		`message="the circuit breaker of greeter is OPEN"`, "took=1.5ms", "endpoint=10.0.0.1:50051", "attempts=2",
		"peer=127.0.0.1:9", "sent=3", "received=4", "trace_id=abc", "task=t1",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("%q is missing in %s", want, log.String())
		}
	}
}

func TestAStormOfErrorsIsCountedNotWritten(t *testing.T) {
	var log logBuffer
	l := newAccessLog(log.logger(), time.Now(), accessLogErrors)
	// Given 1000 failures in one instant, then one 10 s later.
	for range 1000 {
		l.CallEnded(&policy.Record{Code: policy.Unavailable, End: time.Second})
	}
	l.CallEnded(&policy.Record{Code: policy.Unavailable, End: 11 * time.Second})
	l.close()
	if n := strings.Count(log.String(), "msg=call"); n != accessLogBurst+1 {
		t.Errorf("%d lines, want %d", n, accessLogBurst+1)
	}
	if want := fmt.Sprintf("calls=%d", 1000-accessLogBurst); !strings.Contains(log.String(), want) {
		t.Errorf("%q is missing", want)
	}
}

func TestAStderrThatIsStuckHoldsNoCallUp(t *testing.T) {
	stuck := make(chan struct{})
	l := newAccessLog(slog.New(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		<-stuck
		return len(p), nil
	}), nil)), time.Now(), accessLogAll)
	for range 3 * accessLogQueue { // would hang here
		l.CallEnded(&policy.Record{End: time.Second})
	}
	close(stuck)
	l.close()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
