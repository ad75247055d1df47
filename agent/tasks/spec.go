package tasks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// furthest is how far ahead a task may lie.
const furthest = 10 * 365 * 24 * time.Hour

// kindOf returns the kind of a spec's work, and the field that says it.
func kindOf(spec *outriggerv1.TaskSpec) (kind, field string) {
	switch w := spec.GetWork().(type) {
	case *outriggerv1.TaskSpec_Grpc:
		return KindGRPC, "grpc"
	case *outriggerv1.TaskSpec_Http:
		return KindHTTP, "http"
	case *outriggerv1.TaskSpec_Email:
		return KindEmail, "email"
	case *outriggerv1.TaskSpec_App:
		return w.App.GetKind(), "app"
	case *outriggerv1.TaskSpec_Chain:
		return KindChain, "chain"
	}
	return "", ""
}

// filled are fields of a step that expressions will fill: they are not judged yet.
type filled map[string]string

// later reports whether a field, or a field of it, is filled later.
func (f filled) later(field string) bool {
	for path := range f {
		if path == field || strings.HasPrefix(path, field+".") || strings.HasPrefix(field, path+".") {
			return true
		}
	}
	return false
}

// checkSpec returns what is wrong with a task, as a *FieldError or a status. Fields
// that later will be filled are not judged.
func (s *Settings) checkSpec(spec *outriggerv1.TaskSpec, later filled, now time.Time) error {
	kind, field := kindOf(spec)
	if field == "" {
		return &FieldError{"work", "nothing is to be done; set one of grpc, http, email, app and chain"}
	}
	if _, ok := s.Kinds[kind]; !ok || (field == "app") != s.Kinds[kind].App {
		return &FieldError{"app.kind", fmt.Sprintf("%q is no kind of tasks.kinds that apps work; %s", kind, known(s.appKinds()))}
	}
	if err := s.checkQueue(spec, kind, field == "app"); err != nil {
		return err
	}
	if err := checkTimes(spec, now); err != nil {
		return err
	}
	if err := s.checkUnique(spec); err != nil {
		return err
	}
	var err error
	switch w := spec.GetWork().(type) {
	case *outriggerv1.TaskSpec_Grpc:
		err = checkGRPC(w.Grpc)
	case *outriggerv1.TaskSpec_Http:
		err = s.checkHTTP(w.Http, later)
	case *outriggerv1.TaskSpec_Email:
		err = s.checkEmail(w.Email, later)
	case *outriggerv1.TaskSpec_Chain:
		err = s.checkChain(spec, now)
	case *outriggerv1.TaskSpec_App:
		if !later.later("app.payload") {
			if problem := checkPayload("app.payload", w.App.GetPayload()); problem != nil {
				err = problem
			}
		}
	}
	if err != nil {
		return err
	}
	return s.checkSize(spec, field)
}

// content names the field that holds most of a kind's content.
var content = map[string]string{"grpc": "grpc.message", "http": "http.body", "email": "email", "app": "app.payload", "chain": "chain"}

func (s *Settings) checkSize(spec *outriggerv1.TaskSpec, field string) error {
	if size := proto.Size(spec); size > s.MaxPayload {
		return &FieldError{content[field], fmt.Sprintf("the task has %d bytes, and may have %d (tasks.max_payload)", size, s.MaxPayload)}
	}
	return nil
}

func (s *Settings) checkQueue(spec *outriggerv1.TaskSpec, kind string, app bool) error {
	queue := spec.GetQueue()
	switch {
	case queue == "" || app && queue == kind:
		return nil
	case app:
		return &FieldError{"queue", fmt.Sprintf("%q can't stand for %q: tasks that apps work wait in the queue of their kind; leave it out", queue, kind)}
	}
	if _, ok := s.Queues[queue]; ok {
		return nil
	}
	var names []string
	for _, name := range s.queueNames() {
		if _, ok := s.Queues[name]; ok {
			names = append(names, name)
		}
	}
	return &FieldError{"queue", fmt.Sprintf("there is no queue %q; %s", queue, known(names))}
}

func checkTimes(spec *outriggerv1.TaskSpec, now time.Time) error {
	if spec.GetRunAt() != nil && spec.GetDelay() != nil {
		return &FieldError{"run_at", "is given together with delay; want one of the two"}
	}
	if r := spec.GetRunAt(); r != nil {
		if err := r.CheckValid(); err != nil || r.AsTime().After(now.Add(furthest)) {
			return &FieldError{"run_at", fmt.Sprintf("%v is no time within ten years", r.AsTime())}
		}
	}
	if d := spec.GetDeadline(); d != nil {
		if err := d.CheckValid(); err != nil || d.AsTime().After(now.Add(2*furthest)) {
			return &FieldError{"deadline", fmt.Sprintf("%v is no time within twenty years", d.AsTime())}
		}
		if at := runAt(spec, now); !d.AsTime().After(at) {
			return &FieldError{"deadline", fmt.Sprintf("%s is not after the time at which the task is to run, %s", d.AsTime().Format(time.RFC3339), at.UTC().Format(time.RFC3339))}
		}
	}
	retry := spec.GetRetry()
	if retry.GetBase() != nil && retry.GetMax() != nil && retry.GetMax().AsDuration() < retry.GetBase().AsDuration() {
		return &FieldError{"retry.max", fmt.Sprintf("%v is shorter than the first wait, %v", retry.GetMax().AsDuration(), retry.GetBase().AsDuration())}
	}
	if s := spec.GetSchedule(); s != nil {
		if _, err := parseSchedule(s); err != nil {
			return err.within("schedule")
		}
	}
	return nil
}

func (s *Settings) checkUnique(spec *outriggerv1.TaskSpec) error {
	period, kept := spec.GetUnique().GetPeriod().AsDuration(), s.kept()
	if r := spec.GetRetention(); r != nil {
		kept = min(kept, r.AsDuration())
	}
	if period > 0 && period > kept {
		return &FieldError{"unique.period", fmt.Sprintf("%v is longer than a task is kept after it ended, %v: the first of the period would be forgotten; want a longer retention", period, kept)}
	}
	return nil
}

// runAt returns the earliest time at which a task submitted at now runs.
func runAt(spec *outriggerv1.TaskSpec, now time.Time) time.Time {
	switch {
	case spec.GetDelay() != nil:
		return now.Add(spec.GetDelay().AsDuration())
	case spec.GetRunAt() != nil && spec.GetRunAt().AsTime().After(now):
		return spec.GetRunAt().AsTime()
	}
	return now
}

// reserved are metadata keys that the transport or the agent sets.
var reserved = []string{"content-type", "te", "user-agent", "host", "connection", TaskIDKey, AttemptKey, "outrigger-service", "outrigger-defer"}

func reservedKey(key string) bool {
	return strings.HasPrefix(key, "grpc-") || strings.HasPrefix(key, ":") || slices.Contains(reserved, key)
}

func checkGRPC(w *outriggerv1.GrpcWork) error {
	for i, h := range w.GetMetadata() {
		field := fmt.Sprintf("grpc.metadata[%d]", i)
		key := h.GetName()
		switch {
		case strings.Trim(key, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != "":
			return &FieldError{field + ".name", fmt.Sprintf("%q is no metadata key; want lower-case letters, digits, _, . and -", key)}
		case reservedKey(key):
			return &FieldError{field + ".name", fmt.Sprintf("%q is set by the agent itself; leave it out", key)}
		case strings.HasSuffix(key, "-bin"):
			if _, err := decodeBinary(h.GetValue()); err != nil {
				return &FieldError{field + ".value", fmt.Sprintf("the value of %q is not base64", key)}
			}
		case strings.IndexFunc(h.GetValue(), func(r rune) bool { return r < ' ' || r > '~' }) >= 0:
			return &FieldError{field + ".value", fmt.Sprintf("the value of %q holds more than printable ASCII; use a key that ends in -bin", key)}
		}
	}
	return nil
}

// decodeBinary decodes the value of a "-bin" key, padded or not.
func decodeBinary(value string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
}

// ownHeaders are headers that net/http or the agent sets.
var ownHeaders = []string{"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "proxy-connection", TaskIDKey, AttemptKey, "outrigger-service", "outrigger-defer", "webhook-id", "webhook-timestamp", "webhook-signature"}

func (s *Settings) checkHTTP(w *outriggerv1.HttpWork, later filled) error {
	if !later.later("http.url") {
		if problem := checkURL(w.GetUrl()); problem != "" {
			return &FieldError{"http.url", problem}
		}
	}
	for i, h := range w.GetHeaders() {
		field := fmt.Sprintf("http.headers[%d]", i)
		switch {
		case !httpguts.ValidHeaderFieldName(h.GetName()):
			return &FieldError{field + ".name", fmt.Sprintf("%q is no name of a header", h.GetName())}
		case slices.Contains(ownHeaders, strings.ToLower(h.GetName())):
			return &FieldError{field + ".name", fmt.Sprintf("%q is set by the agent itself; leave it out", h.GetName())}
		case !httpguts.ValidHeaderFieldValue(h.GetValue()):
			return &FieldError{field + ".value", fmt.Sprintf("the value of %q holds control characters", h.GetName())}
		}
	}
	if secret := w.GetSignWith(); secret != "" && s.Webhooks[secret] == nil {
		return &FieldError{"http.sign_with", fmt.Sprintf("there is no secret %q in tasks.webhook_secrets", secret)}
	}
	return nil
}

// checkURL says what is wrong with the URL of a request. It shows no more of it
// than its scheme and host: the rest may be secret.
func checkURL(text string) string {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "is no URL"
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Sprintf("its scheme is %q; want http or https", u.Scheme)
	case u.Host == "" || u.Hostname() == "":
		return "it names no host"
	case u.User != nil:
		return "it holds a user name or password, which lists would show; send them in a header"
	case u.Fragment != "":
		return "it has a fragment (#…), which is never sent; leave it out"
	}
	return ""
}

// jsonType is the content type of JSON.
const jsonType = "application/json"

func checkPayload(field string, p *outriggerv1.Payload) *FieldError {
	if p.GetContentType() == jsonType && !json.Valid(p.GetData()) {
		return &FieldError{field + ".data", fmt.Sprintf("its content_type is %s, and it is not JSON", jsonType)}
	}
	return nil
}
