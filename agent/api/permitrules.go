package api

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// The rules of resilience.proto once more, for Guard: there a mistake is
// answered under its tag and ends nothing, and a hundred thousand operations a
// second have no time for the rule compiler. TestGuardHasTheRulesOfTheProto
// keeps the two together.

const (
	maxName       = 1024
	maxMetadata   = 32
	maxKey        = 128
	maxValue      = 4096
	maxLongTime   = 31536000 // seconds: a year
	maxShortTime  = 3600     // seconds
	leastPushback = -1       // seconds
)

// checkAcquire says what is wrong with a request for a permit; empty: nothing.
func checkAcquire(q *outriggerv1.AcquireRequest) string {
	if n := utf8.RuneCountInString(q.GetService()); n == 0 || n > maxName {
		return "service: want the name of a service, of at most 1024 characters"
	}
	if m := q.GetMethod(); m != "" && (m[0] != '/' || utf8.RuneCountInString(m) > maxName || strings.Contains(m, "\n")) {
		return `method: want nothing, or a name that begins with "/", in one line of at most 1024 characters`
	}
	if d := q.GetTimeout(); d != nil && !between(d, 0, maxLongTime) {
		return "timeout: want from 0s to a year"
	}
	if d := q.GetWait(); d != nil && !between(d, 0, maxLongTime) {
		return "wait: want from 0s to a year"
	}
	if _, known := outriggerv1.Criticality_name[int32(q.GetCriticality())]; !known {
		return "criticality: want CRITICAL_PLUS, CRITICAL, SHEDDABLE_PLUS or SHEDDABLE"
	}
	if len(q.GetMetadata()) > maxMetadata {
		return "metadata: want at most 32 entries"
	}
	for k, v := range q.GetMetadata() {
		if !isKey(k) || utf8.RuneCountInString(v) > maxValue {
			return "metadata: want names of 1 to 128 of 0-9 a-z _ . - and values of at most 4096 characters"
		}
	}
	return checkLease(q.GetLease())
}

// checkLease says what is wrong with a lease; empty: nothing.
func checkLease(d *durationpb.Duration) string {
	if d != nil && (!between(d, 0, maxShortTime) || d.AsDuration() == 0) {
		return "lease: want more than 0s and at most 1h"
	}
	return ""
}

// checkReport says what is wrong with a report but for its permit_id, of which
// the holder knows more; empty: nothing.
func checkReport(q *outriggerv1.ReportRequest) string {
	if c := q.GetCode(); c < 0 || c > 16 {
		return "code: want a gRPC status code, from 0 to 16"
	}
	if _, known := outriggerv1.Progress_name[int32(q.GetProgress())]; !known {
		return "progress: want UNREACHED, UNPROCESSED or LOST"
	}
	if q.GetProgress() != 0 && q.GetCode() == 0 {
		return "progress says that the attempt failed, and code that it went well"
	}
	if d := q.GetPushback(); d != nil && !between(d, leastPushback, maxShortTime) {
		return "pushback: want from -1s to 1h"
	}
	if d := q.GetLatency(); d != nil && !between(d, 0, maxShortTime) {
		return "latency: want from 0s to 1h"
	}
	if l := q.GetLoadReport(); l != nil {
		for _, v := range [...]float64{l.GetApplicationUtilization(), l.GetCpuUtilization(), l.GetRpsFractional(), l.GetEps()} {
			if !(v >= 0) || math.IsInf(v, 1) {
				return "load_report: want numbers from 0 on"
			}
		}
	}
	return ""
}

func isKey(s string) bool {
	if s == "" || len(s) > maxKey {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// between reports whether a duration lies between whole seconds, both included.
func between(d *durationpb.Duration, least, most time.Duration) bool {
	v := d.AsDuration()
	return v >= least*time.Second && v <= most*time.Second
}
