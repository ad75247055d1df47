package tasks

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// defaultPriority is the priority of tasks that say none.
const defaultPriority = 2

// scheduleAttempts lets a schedule outlive its failures: each time counts anew.
const scheduleAttempts = 1000

// newJob returns the job of a task that checkSpec found nothing wrong with.
func (e *Executor) newJob(spec *outriggerv1.TaskSpec, now time.Time, trace string) (store.New, error) {
	s := e.settings.Load()
	kind, field := kindOf(spec)
	job := store.New{
		ID: (*e.store.Load()).NewID(), Kind: kind, Queue: spec.GetQueue(), Priority: int(spec.GetPriority()), Tags: spec.GetTags(),
		Pending: kind == KindChain, MaxAttempts: s.Kinds[kind].MaxAttempts,
		Facts: store.Facts{
			Tenant: spec.GetTenant(), Trace: trace,
			Timeout: milliseconds(spec.GetTimeout()), BackoffBase: milliseconds(spec.GetRetry().GetBase()), BackoffMax: milliseconds(spec.GetRetry().GetMax()),
		},
	}
	switch {
	case field == "app":
		job.Queue = kind
	case job.Queue == "":
		job.Queue = DefaultQueue
	}
	if job.Priority == 0 {
		job.Priority = defaultPriority
	}
	if n := spec.GetRetry().GetMaxAttempts(); n != 0 {
		job.MaxAttempts = int(n)
	}
	if job.Pending {
		job.MaxAttempts = 1
	}
	if at := runAt(spec, now); at.After(now) {
		job.RunAt, job.Facts.Due = at, at
	}
	if d := spec.GetDeadline(); d != nil {
		job.Facts.Deadline = d.AsTime()
	}
	if d := spec.GetRetention(); d != nil {
		job.Facts.Retention = max(int64(d.AsDuration()/time.Second), 1)
	}
	if schedule := spec.GetSchedule(); schedule != nil {
		job.Kind, job.Queue, job.Pending, job.MaxAttempts = KindSchedule, scheduleQueue, false, scheduleAttempts
		times, problem := parseSchedule(schedule)
		if problem != nil {
			return store.New{}, problem.within("schedule")
		}
		job.RunAt = times.next(runAt(spec, now))
		if job.RunAt.IsZero() || !job.Facts.Deadline.IsZero() && job.RunAt.After(job.Facts.Deadline) {
			return store.New{}, &FieldError{"schedule.cron", fmt.Sprintf("%q has no time before the deadline", schedule.GetCron())}
		}
	}
	if u := spec.GetUnique(); u != nil {
		job.Unique, job.UntilEnded = uniqueKey(job.Kind, job.Queue, u, runAt(spec, now)), u.GetPeriod().AsDuration() == 0
	}
	var err error
	job.Body, err = e.seal(job.ID, partBody, spec)
	return job, err
}

// milliseconds returns a duration that may be unset: 0. One that is zero is 1.
func milliseconds(d *durationpb.Duration) int64 {
	if d == nil {
		return 0
	}
	return max(d.AsDuration().Milliseconds(), 1)
}

// uniqueKey is where a second task like it finds the first.
func uniqueKey(kind, queue string, u *outriggerv1.UniqueTask, at time.Time) []byte {
	period := int64(-1)
	if d := u.GetPeriod().AsDuration(); d > 0 {
		period = at.UnixNano() / int64(d)
	}
	return keyOf("unique", kind, queue, u.GetKey(), fmt.Sprint(period))
}

// idempotencyKey is where a second submit with the same key finds the first.
func idempotencyKey(key string) []byte { return keyOf("idempotency", key) }

// instanceKey is where a second run of a schedule at the same time finds what the
// first submitted.
func instanceKey(schedule int64, at time.Time) []byte {
	return keyOf("schedule", FormatID(schedule), at.UTC().Format(time.RFC3339))
}

// keyOf hashes texts so that no two lists of them are alike.
func keyOf(texts ...string) []byte {
	h := sha256.New()
	var size [8]byte
	for _, t := range texts {
		binary.BigEndian.PutUint64(size[:], uint64(len(t)))
		h.Write(size[:])
		h.Write([]byte(t))
	}
	return h.Sum(nil)
}

// digestOf is what two submits of the same content share.
func digestOf(spec *outriggerv1.TaskSpec) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}
