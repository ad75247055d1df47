package telemetry

import (
	"log/slog"
	"sync"
	"time"
)

// errorLogEvery bounds how often failures of the exporters are logged: a
// collector that is away for an hour is one fact, not a thousand lines.
const errorLogEvery = time.Minute

// errorLog is OpenTelemetry's error handler: it logs the first failure at once
// and then at most one a minute, with how many were left out.
type errorLog struct {
	logger *slog.Logger

	mu      sync.Mutex
	last    time.Time
	omitted int
}

// Handle logs err.
func (l *errorLog) Handle(err error) {
	if err == nil {
		return
	}
	now := time.Now()
	l.mu.Lock()
	if !l.last.IsZero() && now.Sub(l.last) < errorLogEvery {
		l.omitted++
		l.mu.Unlock()
		return
	}
	omitted := l.omitted
	l.last, l.omitted = now, 0
	l.mu.Unlock()
	attributes := []any{"error", err}
	if omitted > 0 {
		attributes = append(attributes, "left_out", omitted)
	}
	l.logger.Warn("telemetry was not delivered; calls are not affected", attributes...)
}
