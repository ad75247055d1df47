package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

// TaskStats are the task executor's figures. Counters only grow; kinds and queues
// come from the configuration.
type TaskStats struct {
	Kinds  []TaskKindStats
	Queues []TaskQueueStats
	// Submits by what came of them; the labels are few and fixed.
	Submits []policy.Count
	// Commits is how often the store wrote to the disk; Writes what was written.
	Commits, Writes uint64
	// Usable: the store can be written and read.
	Usable bool
}

// TaskKindStats are those of one kind.
type TaskKindStats struct {
	Kind string
	// Attempts that ended, by outcome; the labels are few and fixed.
	Attempts []policy.Count
	// Wait is how long attempts waited past their time, Run how long they took.
	Wait, Run sla.Histogram
	// Report is what was promised and kept, over the window of the SLA's figures.
	// nil: no task of it has ended.
	Report *sla.Report
}

// TaskQueueStats are those of one queue.
type TaskQueueStats struct {
	Name                                             string
	Paused                                           bool
	Available, Scheduled, Retryable, Running, Failed uint64
	Capacity                                         int
	// OldestAge is how long the task that waits longest has waited past its time.
	OldestAge time.Duration
}

// TaskService is the name that a kind's SLA is reported under.
func TaskService(kind string) string { return "tasks/" + kind }

// taskBounds are the buckets of how long tasks wait and run, in seconds.
var taskBounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400}

func collectTasks(c *collection, s TaskStats) {
	for _, q := range s.Queues {
		name := keyQueue.String(q.Name)
		for _, n := range []struct {
			state string
			total uint64
		}{{"AVAILABLE", q.Available}, {"SCHEDULED", q.Scheduled}, {"RETRYABLE", q.Retryable}, {"RUNNING", q.Running}, {"FAILED", q.Failed}} {
			c.level(tasks, int64(n.total), name, keyState.String(n.state))
		}
		c.level(taskCapacity, int64(q.Capacity), name)
		c.gauge(taskOldest, q.OldestAge.Seconds(), name)
		paused := 0.0
		if q.Paused {
			paused = 1
		}
		c.gauge(taskPaused, paused, name)
	}
	for i := range s.Kinds {
		k := &s.Kinds[i]
		name := keyKind.String(k.Kind)
		for _, n := range k.Attempts {
			c.counter(taskAttempts, n.Total, name, keyOutcome.String(n.Label))
		}
		distribution(c, taskWait, taskBounds, &k.Wait, name)
		distribution(c, taskRun, taskBounds, &k.Run, name)
		if k.Report != nil {
			collectSLA(c, *k.Report, keyService.String(TaskService(k.Kind)))
		}
	}
	for _, n := range s.Submits {
		c.counter(taskSubmits, n.Total, keyOutcome.String(n.Label))
	}
	c.counter(taskCommits, s.Commits)
	c.counter(taskWrites, s.Writes)
	usable := 0.0
	if s.Usable {
		usable = 1
	}
	c.gauge(taskStore, usable)
}

// distribution adds a histogram in the buckets of bounds.
func distribution(c *collection, i instrument, bounds []float64, h *sla.Histogram, attributes ...attribute.KeyValue) {
	counts := make([]uint64, len(bounds)+1)
	at := 0
	for edge, n := range h.Buckets() {
		for at < len(bounds) && edge.Seconds() > bounds[at] {
			at++
		}
		counts[at] += n
	}
	counts[len(bounds)] += h.Unanswered()
	c.histogram(i, bounds, counts, h.Count(), h.SumSeconds(), attributes...)
}

// Attempt is an attempt of a task, as its span says.
type Attempt struct {
	ID, Kind, Queue string
	Attempt         int
	Waited          time.Duration
	// Traceparent is the submitter's; empty: it told none.
	Traceparent string
}

// TaskSpan is the span of one attempt. A nil one records nothing.
type TaskSpan struct{ span trace.Span }

// StartTask decides as StartCall does whether an attempt is recorded, and starts
// its span if so, of kind CONSUMER: in a trace of its own that links to the
// submitter's, as OpenTelemetry advises for work that is done later. The
// traceparent is what the attempt's own calls carry; empty where none is recorded:
// then the submitter's.
func (t *Tracer) StartTask(a Attempt) (s *TaskSpan, traceparent string) {
	submitter, told := parseTraceparent(a.Traceparent)
	if told && !submitter.sampled() {
		return nil, ""
	}
	if !told {
		decision := t.ratio.ShouldSample(sdktrace.SamplingParameters{ParentContext: context.Background(), TraceID: newTraceID()})
		if decision.Decision != sdktrace.RecordAndSample {
			return nil, ""
		}
	}
	options := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		keyTask.String(a.ID), keyKind.String(a.Kind), keyQueue.String(a.Queue), keyAttempt.Int(a.Attempt), keyWaited.Float64(a.Waited.Seconds()))}
	if told {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: submitter.traceID, SpanID: submitter.spanID, TraceFlags: submitter.flags, Remote: true,
		})}))
	}
	_, span := t.tracer.Start(context.Background(), "Task "+a.Kind, options...)
	return &TaskSpan{span}, formatTraceparent(span.SpanContext())
}

// End ends the span. why is empty where the task was done.
func (s *TaskSpan) End(outcome, why string) {
	if s == nil {
		return
	}
	s.span.SetAttributes(keyOutcome.String(outcome))
	if why != "" {
		s.span.SetStatus(codes.Error, why)
	}
	s.span.End()
}
