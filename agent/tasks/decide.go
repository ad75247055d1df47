package tasks

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

// failure is why an attempt did not do its task.
type failure struct {
	why string
	// permanent: another attempt would end the same way.
	permanent bool
	// snooze: nobody but the agent saw the attempt, so it does not count.
	snooze bool
	// after is how long to wait at least; zero: nobody said. With exactly, it is how
	// long to wait.
	after   time.Duration
	exactly bool
	// progress is what the next attempt has to know, sealed; nil: nothing.
	progress []byte
}

// Bounds of how long a task is put off that the agent's own policies refused.
const (
	snoozeLeast = 500 * time.Millisecond
	snoozeMost  = 10 * time.Minute
	// Where nobody says, the first time is this long, and each that follows twice
	// as long, so often.
	snoozeDefault   = 2 * time.Second
	snoozeDoublings = 7
)

// maxRetryAfter bounds what a receiver may ask for.
const maxRetryAfter = 24 * time.Hour

// plan is what becomes of a job whose attempt has ended.
type plan struct {
	outcome store.Outcome
	as      Outcome
	why     string    // empty: it is done
	at      time.Time // of the next attempt; zero: none comes
	// progress is what the next attempt has to know, sealed; nil: nothing new.
	progress []byte
}

// ended reports whether the job has ended with it.
func (p plan) ended() bool { return p.as == Done || p.as == GivenUp || p.as == Cancelled }

// decide says what becomes of a job after a failed attempt. random is from 0 to 1.
func decide(j *store.Job, k Kind, f failure, now time.Time, random float64) plan {
	var at time.Time
	switch {
	case f.permanent:
		return giveUp(f.why)
	case !f.snooze && j.Attempt >= j.MaxAttempts:
		return giveUp(f.why)
	case f.exactly:
		at = now.Add(f.after)
	case f.snooze:
		at = now.Add(snoozeFor(f.after, j.Snoozes, random))
	default:
		at = now.Add(max(backoff(j, k, random), min(f.after, maxRetryAfter)))
	}
	if d := j.Facts.Deadline; !d.IsZero() && !at.Before(d) {
		return giveUp(fmt.Sprintf("%s: the next attempt would come after its deadline, %s; %s", ReasonDeadline, d.UTC().Format(time.RFC3339), f.why))
	}
	if f.snooze {
		return putOff(at, Snoozed, f.why)
	}
	return plan{outcome: store.Retry(at, f.why), as: Retried, why: f.why, at: at, progress: f.progress}
}

func giveUp(why string) plan {
	return plan{outcome: store.GiveUp(why), as: GivenUp, why: why}
}

func stopped(why string) plan {
	return plan{outcome: store.Stopped(why), as: Cancelled, why: why}
}

// putOff has the job run again without an attempt being counted.
func putOff(at time.Time, as Outcome, why string) plan {
	return plan{outcome: store.Snooze(at, why), as: as, why: why, at: at}
}

// backoff returns the wait after a failed attempt: the first doubles with each, up
// to the longest, and what is waited is drawn between half of it and all of it.
func backoff(j *store.Job, k Kind, random float64) time.Duration {
	base, longest := k.BackoffBase, k.BackoffMax
	if ms := j.Facts.BackoffBase; ms > 0 {
		base = time.Duration(ms) * time.Millisecond
		longest = max(longest, base)
	}
	if ms := j.Facts.BackoffMax; ms > 0 {
		longest = time.Duration(ms) * time.Millisecond
		base = min(base, longest)
	}
	wait := base
	attempts, _ := j.Counted()
	for n := 1; n < attempts && wait < longest; n++ {
		wait *= 2
	}
	wait = min(wait, longest)
	return wait/2 + time.Duration(random*float64(wait/2))
}

// snoozeFor returns how long a task is put off: as long as it was told, or longer
// each time, and up to half as much again, so that not all come back at once.
func snoozeFor(told time.Duration, snoozes int, random float64) time.Duration {
	if told <= 0 {
		told = snoozeDefault << min(snoozes, snoozeDoublings)
	}
	told = min(max(told, snoozeLeast), snoozeMost)
	return told + time.Duration(random*float64(told/2))
}

// permanent are the codes after which a call is not made again: it would end the
// same way. All others are tried again, among them UNAVAILABLE, INTERNAL, UNKNOWN,
// ABORTED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, CANCELLED and DATA_LOSS.
var permanent = map[codes.Code]bool{
	codes.InvalidArgument:    true,
	codes.NotFound:           true,
	codes.AlreadyExists:      true,
	codes.PermissionDenied:   true,
	codes.Unauthenticated:    true,
	codes.FailedPrecondition: true,
	codes.OutOfRange:         true,
	codes.Unimplemented:      true,
}

// unseen are the reasons of the agent's own refusals before any endpoint saw the
// call: waiting helps, and no attempt was made.
var unseen = map[string]bool{
	"BREAKER_OPEN":      true,
	"NO_ENDPOINTS":      true,
	"ALL_UNHEALTHY":     true,
	"CONCURRENCY_LIMIT": true,
	"QUEUE_TIMEOUT":     true,
	"RATE_LIMIT":        true,
	"THROTTLED":         true,
	"DRAINING":          true,
}

// callFailure sorts how a call ended that failed.
func callFailure(err error) failure {
	if errors.Is(err, ErrReplyTooLarge) {
		return failure{why: err.Error(), permanent: true}
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err) // UNKNOWN for any other
	}
	f := failure{why: fmt.Sprintf("%s: %s", codeName(s.Code()), s.Message()), permanent: permanent[s.Code()]}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == Domain {
				f.snooze = unseen[d.GetReason()]
				f.why = d.GetReason() + ": " + s.Message()
			}
		case *errdetails.RetryInfo:
			f.after = durationOf(d.GetRetryDelay())
		}
	}
	f.why = short(f.why)
	return f
}

// durationOf returns a duration that somebody else sent: none below zero.
func durationOf(d *durationpb.Duration) time.Duration { return max(d.AsDuration(), 0) }

// codeName returns a code as the protocol spells it.
func codeName(c codes.Code) string {
	if c == codes.Canceled {
		return "CANCELLED"
	}
	var name []byte
	for i, r := range []byte(c.String()) {
		if i > 0 && 'A' <= r && r <= 'Z' {
			name = append(name, '_')
		}
		name = append(name, r&^0x20)
	}
	return string(name)
}
