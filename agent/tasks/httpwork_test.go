package tasks

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestHowARequestFailed(t *testing.T) {
	now := at("2026-01-01T00:00:00Z")
	for _, tc := range []struct {
		code   int
		header http.Header
		want   *failure
	}{
		{200, nil, nil},
		{204, http.Header{"Retry-After": {"5"}}, nil},
		{301, nil, &failure{why: "301 Moved Permanently", permanent: true}},
		{400, nil, &failure{why: "400 Bad Request", permanent: true}},
		{404, nil, &failure{why: "404 Not Found", permanent: true}},
		{408, nil, &failure{why: "408 Request Timeout"}},
		{410, nil, &failure{why: "410 Gone", permanent: true}},
		{425, nil, &failure{why: "425 Too Early"}},
		{429, http.Header{"Retry-After": {"7"}}, &failure{why: "429 Too Many Requests", after: 7 * time.Second}},
		{500, nil, &failure{why: "500 Internal Server Error"}},
		{503, http.Header{"Retry-After": {"Thu, 01 Jan 2026 00:01:00 GMT"}}, &failure{why: "503 Service Unavailable", after: time.Minute}},
		{503, http.Header{"Retry-After": {"Wed, 31 Dec 2025 00:01:00 GMT"}}, &failure{why: "503 Service Unavailable"}},
		{503, http.Header{"Retry-After": {"-5"}}, &failure{why: "503 Service Unavailable"}},
		{503, http.Header{"Outrigger-Reason": {"BREAKER_OPEN"}, "Retry-After": {"30"}}, &failure{why: "BREAKER_OPEN: 503 Service Unavailable", snooze: true, after: 30 * time.Second}},
		{503, http.Header{"Outrigger-Reason": {"CONNECT_FAILED"}}, &failure{why: "CONNECT_FAILED: 503 Service Unavailable"}},
		{404, http.Header{"Outrigger-Reason": {"NO_ROUTE"}}, &failure{why: "NO_ROUTE: 404 Not Found", permanent: true}},
		{599, nil, &failure{why: "599"}},
	} {
		got := httpFailure(&http.Response{StatusCode: tc.code, Header: tc.header}, now)
		if (got == nil) != (tc.want == nil) || got != nil && fmt.Sprint(*got) != fmt.Sprint(*tc.want) {
			t.Errorf("%d %v: got %+v, want %+v", tc.code, tc.header, got, tc.want)
		}
	}
}

func TestARefusalByTheAgentSaysWhy(t *testing.T) {
	for _, tc := range []struct{ contentType, body, want string }{
		{"application/problem+json", `{"detail": "no service matches authority \"a\""}`, `NO_ROUTE: no service matches authority "a"`},
		{"application/problem+json", `{"detail": ""}`, "NO_ROUTE: 404 Not Found"},
		{"application/problem+json", `{"detail": "it broke`, "NO_ROUTE: 404 Not Found"},
		{"text/plain", "not found", "NO_ROUTE: 404 Not Found"},
	} {
		header := http.Header{"Outrigger-Reason": {"NO_ROUTE"}, "Content-Type": {tc.contentType}}
		got := httpFailure(&http.Response{StatusCode: 404, Header: header, Body: io.NopCloser(strings.NewReader(tc.body))}, time.Time{})
		if got.why != tc.want || !got.permanent {
			t.Errorf("%s %s: got %+v, want %q", tc.contentType, tc.body, got, tc.want)
		}
	}
}
