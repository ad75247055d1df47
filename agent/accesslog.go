package agent

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	// accessLogQueue is how many lines may wait for a slow stderr before
	// further ones are left out.
	accessLogQueue = 1024
	// accessLogBurst and accessLogPerSecond bound the lines about failed calls:
	// a storm is worth a hundred examples and a figure, not a full disk.
	accessLogBurst     = 100
	accessLogPerSecond = 20
	// accessLogSummary is how often the lines left out are counted up.
	accessLogSummary = 5 * time.Second
)

// accessLogMode says which calls are logged.
type accessLogMode uint8

const (
	accessLogOff accessLogMode = iota
	accessLogErrors
	accessLogAll
)

// accessLog writes a line for each call that ended, or for each that failed.
// It implements policy.Observer: CallEnded never waits for the writer, which is
// a goroutine of its own; lines that don't fit are counted and owned up to.
//
// Lines name calls by what configuration and protocol give them. Metadata
// values never stand in them, nor does the message of an upstream's status,
// which may quote the data of a call; the agent's own messages do.
type accessLog struct {
	logger *slog.Logger
	origin time.Time
	lines  chan slog.Record
	stop   chan struct{}
	done   chan struct{}

	mode atomic.Uint32 // an accessLogMode: asked for every call

	mu      sync.Mutex
	tokens  float64
	last    policy.Instant
	omitted uint64
}

// newAccessLog starts the writer. close ends it.
func newAccessLog(logger *slog.Logger, origin time.Time, mode accessLogMode) *accessLog {
	l := &accessLog{
		logger: logger, origin: origin, tokens: accessLogBurst,
		lines: make(chan slog.Record, accessLogQueue), stop: make(chan struct{}), done: make(chan struct{}),
	}
	l.setMode(mode)
	go l.write()
	return l
}

// setMode changes which calls are logged from now on.
func (l *accessLog) setMode(mode accessLogMode) {
	l.mode.Store(uint32(mode))
}

// close writes what is waiting and ends the writer. Calls that end afterwards
// are not logged.
func (l *accessLog) close() {
	close(l.stop)
	<-l.done
}

// CallEnded takes a call's record.
func (l *accessLog) CallEnded(r *policy.Record) {
	failed := r.Code != policy.OK
	if !l.admit(failed, r.End) {
		return
	}
	select {
	case l.lines <- l.line(r, failed):
	default:
		l.omit()
	}
}

// admit decides whether a call gets a line.
func (l *accessLog) admit(failed bool, now policy.Instant) bool {
	switch mode := accessLogMode(l.mode.Load()); {
	case mode == accessLogOff || mode == accessLogErrors && !failed:
		return false
	case mode == accessLogAll:
		return true // asked for; the queue alone bounds it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now > l.last {
		l.tokens = min(accessLogBurst, l.tokens+(now-l.last).Seconds()*accessLogPerSecond)
		l.last = now
	}
	if l.tokens < 1 {
		l.omitted++
		return false
	}
	l.tokens--
	return true
}

func (l *accessLog) omit() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.omitted++
}

// line makes a record that outlives the call.
func (l *accessLog) line(r *policy.Record, failed bool) slog.Record {
	level := slog.LevelInfo
	if failed {
		level = slog.LevelWarn
	}
	line := slog.NewRecord(l.origin.Add(r.End), level, "call", 0)
	line.AddAttrs(
		slog.String("service", r.Service),
		slog.String("method", strings.Clone(r.Method)),
		slog.String("code", r.Code.String()),
	)
	if r.Reason != policy.ReasonNone {
		line.AddAttrs(slog.String("reason", r.Reason.String()), slog.String("message", strings.Clone(r.Message)))
	}
	line.AddAttrs(
		slog.Duration("took", (r.End-r.Start).Round(time.Microsecond)),
		slog.String("endpoint", r.Endpoint),
		slog.Int("attempts", r.Attempts),
		slog.String("peer", strings.Clone(r.Peer)),
		slog.Uint64("sent", r.RequestBytes),
		slog.Uint64("received", r.ResponseBytes),
	)
	if r.TaskID != "" {
		line.AddAttrs(slog.String("task", r.TaskID))
	}
	if r.TraceID != "" {
		line.AddAttrs(slog.String("trace_id", r.TraceID))
	}
	return line
}

// write is the writer goroutine.
func (l *accessLog) write() {
	defer close(l.done)
	summary := time.NewTicker(accessLogSummary)
	defer summary.Stop()
	for {
		select {
		case line := <-l.lines:
			l.emit(line)
		case <-summary.C:
			l.summarise()
		case <-l.stop:
			for {
				select {
				case line := <-l.lines:
					l.emit(line)
				default:
					l.summarise()
					return
				}
			}
		}
	}
}

func (l *accessLog) emit(line slog.Record) {
	handler := l.logger.Handler()
	if handler.Enabled(context.Background(), line.Level) {
		_ = handler.Handle(context.Background(), line) // a stderr that is gone has nobody to tell
	}
}

func (l *accessLog) summarise() {
	l.mu.Lock()
	omitted := l.omitted
	l.omitted = 0
	l.mu.Unlock()
	if omitted > 0 {
		l.logger.Warn("access log: lines left out so that the log keeps up", "calls", omitted)
	}
}
