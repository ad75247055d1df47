package tasks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

var testKind = Kind{MaxAttempts: 5, BackoffBase: time.Second, BackoffMax: 10 * time.Second, Timeout: 30 * time.Second}

func TestWhatBecomesOfAFailedAttempt(t *testing.T) {
	now := at("2026-01-01T00:00:00Z")
	deadline := store.Facts{Deadline: now.Add(5 * time.Second)}
	for _, tc := range []struct {
		name   string
		job    store.Job
		f      failure
		random float64
		want   store.Outcome
		as     Outcome
	}{
		{"the first is tried again after the first wait", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x"}, 1, store.Retry(now.Add(time.Second), "x"), Retried},
		{"or after half of it", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x"}, 0, store.Retry(now.Add(500*time.Millisecond), "x"), Retried},
		{"the wait doubles", store.Job{Attempt: 3, MaxAttempts: 5}, failure{why: "x"}, 1, store.Retry(now.Add(4*time.Second), "x"), Retried},
		{"what was put off counts for none", store.Job{Attempt: 31, MaxAttempts: 35, Snoozes: 30}, failure{why: "x"}, 1, store.Retry(now.Add(time.Second), "x"), Retried},
		{"up to the longest", store.Job{Attempt: 900, MaxAttempts: 1000}, failure{why: "x"}, 1, store.Retry(now.Add(10*time.Second), "x"), Retried},
		{"the task's own waits", store.Job{Attempt: 2, MaxAttempts: 5, Facts: store.Facts{BackoffBase: 100, BackoffMax: 150}}, failure{why: "x"}, 1, store.Retry(now.Add(150*time.Millisecond), "x"), Retried},
		{"a first wait above the kind's longest", store.Job{Attempt: 2, MaxAttempts: 5, Facts: store.Facts{BackoffBase: 60000}}, failure{why: "x"}, 1, store.Retry(now.Add(60*time.Second), "x"), Retried},
		{"no earlier than the receiver asks", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", after: time.Minute}, 1, store.Retry(now.Add(time.Minute), "x"), Retried},
		{"but within a day", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", after: 1000 * time.Hour}, 1, store.Retry(now.Add(24*time.Hour), "x"), Retried},
		{"the last attempt was the last", store.Job{Attempt: 5, MaxAttempts: 5}, failure{why: "x"}, 1, store.GiveUp("x"), GivenUp},
		{"what is of no use is not tried again", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", permanent: true}, 1, store.GiveUp("x"), GivenUp},
		{"put off, even after the last attempt", store.Job{Attempt: 5, MaxAttempts: 5}, failure{why: "x", snooze: true, after: 10 * time.Second}, 0, store.Snooze(now.Add(10*time.Second), "x"), Snoozed},
		{"put off by up to half as much again", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", snooze: true, after: 10 * time.Second}, 1, store.Snooze(now.Add(15*time.Second), "x"), Snoozed},
		{"put off by half a second at least", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", snooze: true, after: time.Millisecond}, 0, store.Snooze(now.Add(500*time.Millisecond), "x"), Snoozed},
		{"put off for two seconds where nobody says", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", snooze: true}, 0, store.Snooze(now.Add(2*time.Second), "x"), Snoozed},
		{"and longer each time", store.Job{Attempt: 4, MaxAttempts: 8, Snoozes: 3}, failure{why: "x", snooze: true}, 0, store.Snooze(now.Add(16*time.Second), "x"), Snoozed},
		{"up to some minutes", store.Job{Attempt: 301, MaxAttempts: 305, Snoozes: 300}, failure{why: "x", snooze: true}, 0, store.Snooze(now.Add(256*time.Second), "x"), Snoozed},
		{"exactly as a worker asks", store.Job{Attempt: 1, MaxAttempts: 5}, failure{why: "x", after: time.Millisecond, exactly: true}, 1, store.Retry(now.Add(time.Millisecond), "x"), Retried},
		{"put off exactly as a worker asks", store.Job{Attempt: 5, MaxAttempts: 5}, failure{why: "x", after: time.Hour, exactly: true, snooze: true}, 1, store.Snooze(now.Add(time.Hour), "x"), Snoozed},
		{"a retry after the deadline is none", store.Job{Attempt: 4, MaxAttempts: 9, Facts: deadline}, failure{why: "x"}, 1, store.GiveUp("DEADLINE: the next attempt would come after its deadline, 2026-01-01T00:00:05Z; x"), GivenUp},
		{"nor is being put off beyond it", store.Job{Attempt: 1, MaxAttempts: 9, Facts: deadline}, failure{why: "x", snooze: true, after: 5 * time.Second}, 0, store.GiveUp("DEADLINE: the next attempt would come after its deadline, 2026-01-01T00:00:05Z; x"), GivenUp},
		{"one before the deadline comes", store.Job{Attempt: 1, MaxAttempts: 9, Facts: deadline}, failure{why: "x"}, 1, store.Retry(now.Add(time.Second), "x"), Retried},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := decide(&tc.job, testKind, tc.f, now, tc.random)
			if fmt.Sprintf("%+v", got.outcome) != fmt.Sprintf("%+v", tc.want) || got.as != tc.as {
				t.Errorf("got  %v %+v\nwant %v %+v", got.as, got.outcome, tc.as, tc.want)
			}
		})
	}
}

func refusedBy(domain, reason string, code codes.Code, after time.Duration) error {
	s, err := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Domain: domain, Reason: reason}, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func TestHowACallFailed(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want failure
	}{
		{"not there", status.Error(codes.NotFound, "no user 7"), failure{why: "NOT_FOUND: no user 7", permanent: true}},
		{"a mistake", status.Error(codes.InvalidArgument, "no"), failure{why: "INVALID_ARGUMENT: no", permanent: true}},
		{"not allowed", status.Error(codes.PermissionDenied, "no"), failure{why: "PERMISSION_DENIED: no", permanent: true}},
		{"nobody", status.Error(codes.Unauthenticated, "no"), failure{why: "UNAUTHENTICATED: no", permanent: true}},
		{"down", status.Error(codes.Unavailable, "no"), failure{why: "UNAVAILABLE: no"}},
		{"broken", status.Error(codes.Internal, "no"), failure{why: "INTERNAL: no"}},
		{"too slow", context.DeadlineExceeded, failure{why: "DEADLINE_EXCEEDED: context deadline exceeded"}},
		{"cancelled over there", status.Error(codes.Canceled, "no"), failure{why: "CANCELLED: no"}},
		{"pushback", refusedBy("shop.example.com", "QUOTA", codes.ResourceExhausted, 7*time.Second), failure{why: "RESOURCE_EXHAUSTED: no", after: 7 * time.Second}},
		{"our breaker", refusedBy("outrigger", "BREAKER_OPEN", codes.Unavailable, 7*time.Second), failure{why: "BREAKER_OPEN: no", snooze: true, after: 7 * time.Second}},
		{"somebody else's breaker", refusedBy("shop.example.com", "BREAKER_OPEN", codes.Unavailable, 0), failure{why: "UNAVAILABLE: no"}},
		{"no endpoints", refusedBy("outrigger", "NO_ENDPOINTS", codes.Unavailable, 0), failure{why: "NO_ENDPOINTS: no", snooze: true}},
		{"an endpoint that can't be reached was tried", refusedBy("outrigger", "CONNECT_FAILED", codes.Unavailable, 0), failure{why: "CONNECT_FAILED: no"}},
		{"no route", refusedBy("outrigger", "NO_ROUTE", codes.Unimplemented, 0), failure{why: "NO_ROUTE: no", permanent: true}},
		{"a reply that can't be kept", fmt.Errorf("%w: 5 bytes", ErrReplyTooLarge), failure{why: ErrReplyTooLarge.Error() + ": 5 bytes", permanent: true}},
		{"an error that is no status", errors.New("boom"), failure{why: "UNKNOWN: boom"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := callFailure(tc.err); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestLongReasonsAreCut(t *testing.T) {
	f := callFailure(status.Error(codes.Internal, strings.Repeat("ä", 5000)+"\x00\nb"))
	if len(f.why) > maxWhy+len("…") || !strings.HasSuffix(f.why, "…") {
		t.Errorf("%d bytes, which end in %q", len(f.why), f.why[len(f.why)-5:])
	}
}
