package tasks

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// reasonHeader marks an answer that is the agent's own refusal.
const reasonHeader = "Outrigger-Reason"

// doHTTP sends a request. Redirects are not followed: they are answers that are
// no success.
func (e *Executor) doHTTP(ctx context.Context, j *store.Job, w *outriggerv1.HttpWork) (*outriggerv1.TaskResult, *failure) {
	s := e.settings.Load()
	r, err := e.request(ctx, s, j, w)
	if err != nil {
		return nil, &failure{why: short(err.Error()), permanent: true}
	}
	res, err := e.options.HTTP.RoundTrip(r)
	if err != nil {
		return nil, &failure{why: short(withoutURL(err))}
	}
	defer res.Body.Close()
	if f := httpFailure(res, e.now()); f != nil {
		return nil, f
	}
	// One byte more than is kept tells whether there is more.
	body, err := io.ReadAll(io.LimitReader(res.Body, int64(s.MaxPayload)+1))
	if err != nil {
		return nil, &failure{why: short(fmt.Sprintf("%s, and then its body broke off: %s", res.Status, withoutURL(err)))}
	}
	truncated := len(body) > s.MaxPayload
	if truncated {
		body = body[:s.MaxPayload]
	}
	contentType := res.Header.Get("Content-Type")
	if len(contentType) > 128 {
		contentType = ""
	}
	return &outriggerv1.TaskResult{
		HttpStatus: uint32(res.StatusCode), Truncated: truncated,
		Payload: &outriggerv1.Payload{Data: body, ContentType: strings.ToValidUTF8(contentType, "")},
	}, nil
}

// request makes the request of an attempt, signed where it is to be.
func (e *Executor) request(ctx context.Context, s *Settings, j *store.Job, w *outriggerv1.HttpWork) (*http.Request, error) {
	method := w.GetMethod()
	if method == "" {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, w.GetUrl(), bytes.NewReader(w.GetBody()))
	if err != nil {
		return nil, errors.New("the URL of the request is none")
	}
	r.Header.Set("User-Agent", "outrigger")
	if trace, _ := ctx.Value(traceKey{}).(string); trace != "" {
		r.Header.Set("Traceparent", trace)
	}
	given := http.Header{}
	for _, h := range w.GetHeaders() {
		given.Add(h.GetName(), h.GetValue())
	}
	for name, values := range given {
		r.Header[name] = values
	}
	id := FormatID(j.ID)
	r.Header.Set(TaskIDKey, id)
	r.Header.Set(AttemptKey, strconv.Itoa(j.Attempt))
	if secret := w.GetSignWith(); secret != "" {
		signer := s.Webhooks[secret]
		if signer == nil {
			return nil, fmt.Errorf("there is no secret %q in tasks.webhook_secrets any more", secret)
		}
		signed, err := signer.Sign(id, e.now(), w.GetBody())
		if err != nil {
			return nil, fmt.Errorf("it can't be signed with %q: %w", secret, err)
		}
		signed.Set(r.Header)
	}
	return r, nil
}

// httpFailure sorts an answer; nil: it is success.
func httpFailure(res *http.Response, now time.Time) *failure {
	code := res.StatusCode
	f := &failure{why: short(strings.TrimSpace(fmt.Sprintf("%d %s", code, http.StatusText(code)))), after: retryAfter(res.Header.Get("Retry-After"), now)}
	if reason := res.Header.Get(reasonHeader); reason != "" && code >= 400 {
		f.why = short(reason + ": " + cmp.Or(problemDetail(res), f.why))
		f.snooze = unseen[reason]
	}
	switch {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return f
	}
	f.permanent = !f.snooze
	return f
}

// maxProblem bounds the answer that says why a request was refused, in bytes.
const maxProblem = 16 << 10

// problemDetail returns what the agent says of its refusal (RFC 9457); empty: the
// answer is no such thing.
func problemDetail(res *http.Response) string {
	if res.Body == nil || res.Header.Get("Content-Type") != "application/problem+json" {
		return ""
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	if err != nil {
		return ""
	}
	var problem struct {
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		return ""
	}
	return problem.Detail
}

// retryAfter reads the header Retry-After (RFC 9110, 10.2.3); zero: it says nothing.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return at.Sub(now)
	}
	return 0
}

// withoutURL returns an error's text without the URL, which may hold secrets.
func withoutURL(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within the attempt's time"
	case errors.Is(err, context.Canceled):
		return "the attempt was cancelled"
	}
	return err.Error()
}
