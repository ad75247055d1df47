package policy

import (
	"encoding/json"
	"strconv"
	"time"
)

// StatusRange is the HTTP statuses from First to Last, both included.
type StatusRange struct{ First, Last int }

// HTTPStatuses says what the status of a plain HTTP answer means. The zero
// value: 5xx is a failure, 429 is pushback, anything else is an answer.
type HTTPStatuses struct {
	// Failures count as the server's. nil: 500 to 599.
	Failures []StatusRange
	// Pushback asks for less and is no failure, unless Failures has it too.
	// nil: 429.
	Pushback []StatusRange
}

var (
	defaultFailures = []StatusRange{{500, 599}}
	defaultPushback = []StatusRange{{429, 429}}
)

// Code sorts a status into the gRPC code that the policies and the SLA know.
func (h *HTTPStatuses) Code(status int) Code {
	failures, pushback := h.Failures, h.Pushback
	if failures == nil {
		failures = defaultFailures
	}
	if pushback == nil {
		pushback = defaultPushback
	}
	switch {
	case within(failures, status):
		switch {
		case status >= 502 && status <= 504:
			return Unavailable
		case status >= 500:
			return Internal
		}
		return Unknown
	case within(pushback, status):
		return ResourceExhausted
	}
	return OK
}

func within(ranges []StatusRange, status int) bool {
	for _, r := range ranges {
		if r.First <= status && status <= r.Last {
			return true
		}
	}
	return false
}

// HTTPStatus returns the status that a refusal with this code is answered with
// where the caller speaks plain HTTP.
func HTTPStatus(code Code) int {
	switch code {
	case Unimplemented:
		return 404
	case Unavailable:
		return 503
	case ResourceExhausted:
		return 429
	case DeadlineExceeded:
		return 504
	case FailedPrecondition:
		return 400
	}
	return 502
}

// ProblemType is the media type of Refusal.Problem.
const ProblemType = "application/problem+json"

// Problem returns the refusal as RFC 9457 problem details, with the reason and
// where it happened as further members.
func (r *Refusal) Problem() []byte {
	p := struct {
		Type     string `json:"type"`
		Title    string `json:"title"`
		Status   int    `json:"status"`
		Detail   string `json:"detail"`
		Domain   string `json:"domain"`
		Reason   string `json:"reason"`
		Service  string `json:"service,omitempty"`
		Endpoint string `json:"endpoint,omitempty"`
		Policy   string `json:"policy,omitempty"`
		Retry    int64  `json:"retry_after_ms,omitempty"`
	}{
		"about:blank", "The call was not served: " + r.Reason.String(), HTTPStatus(r.Code()), r.Message,
		Domain, r.Reason.String(), r.Service, r.Endpoint, r.Policy, r.RetryAfter.Milliseconds(),
	}
	b, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and numbers can always be written
	}
	return append(b, '\n')
}

// RetryAfterSeconds returns RetryAfter as the HTTP header wants it: whole
// seconds, rounded up. Empty: not known.
func (r *Refusal) RetryAfterSeconds() string {
	if r.RetryAfter <= 0 {
		return ""
	}
	return strconv.FormatInt(int64((r.RetryAfter+time.Second-1)/time.Second), 10)
}
