package tasks

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/email"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// stage is an executor over a store in memory, what it calls, and what it called.
type stage struct {
	t     *testing.T
	e     *Executor
	store *memory
	// call, request and mail answer attempts; nil: with success.
	call    func(ctx context.Context, c Call) ([]byte, error)
	request func(r *http.Request) (*http.Response, error)
	mail    func(m email.Message) (email.Receipt, error)

	mu    sync.Mutex
	calls []Call
	mails []email.Message
}

func testSettings() Settings {
	kind := Kind{MaxAttempts: 3, BackoffBase: time.Second, BackoffMax: 10 * time.Second, Timeout: 30 * time.Second}
	app := kind
	app.App, app.Lease, app.Capacity, app.Timeout = true, 30*time.Second, 100, time.Hour
	return Settings{
		Queues: map[string]Queue{"default": {Workers: 4, Capacity: 100}, "small": {Workers: 1, Capacity: 2}, "callers": {Workers: 1, Capacity: 1, CallerRuns: true}},
		Kinds: map[string]Kind{
			KindGRPC: kind, KindHTTP: kind, KindEmail: kind, KindChain: kind, "save-user": app, "resize": app,
		},
		MaxPayload: 4096,
		Retention:  store.Retention{Completed: 24 * time.Hour, Cancelled: 24 * time.Hour, Failed: 168 * time.Hour},
	}
}

// onStage runs a test in virtual time, with an executor that runs.
func onStage(t *testing.T, test func(s *stage)) {
	t.Helper()
	onStageWith(t, func(*Options) {}, test)
}

func onStageWith(t *testing.T, change func(*Options), test func(s *stage)) {
	t.Helper()
	onStageFrom(t, "2000-01-01T00:00:00Z", change, test)
}

// onStageFrom runs a test from a time on.
func onStageFrom(t *testing.T, from string, change func(*Options), test func(s *stage)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		sleepUntil(from) // before anything ticks
		s := newStage(t, change)
		if err := s.e.Start(t.Context(), s.store); err != nil {
			t.Fatal(err)
		}
		test(s)
		s.stop(time.Minute)
	})
}

// newStage returns a stage whose executor does not run yet.
func newStage(t *testing.T, change func(*Options)) *stage {
	t.Helper()
	s := &stage{t: t}
	o := Options{Settings: testSettings(), Calls: s, HTTP: s, Random: func() float64 { return 1 }}
	o.Email = s
	change(&o)
	var err error
	if s.e, err = New(o); err != nil {
		t.Fatal(err)
	}
	s.store = newMemory(s.e.Moved)
	return s
}

func (s *stage) stop(within time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if err := s.e.Stop(ctx); err != nil {
		s.t.Error(err)
	}
}

// Call implements Calls.
func (s *stage) Call(ctx context.Context, c Call) ([]byte, error) {
	s.mu.Lock()
	s.calls = append(s.calls, c)
	s.mu.Unlock()
	if s.call == nil {
		return []byte("reply"), nil
	}
	return s.call(ctx, c)
}

// RoundTrip implements http.RoundTripper.
func (s *stage) RoundTrip(r *http.Request) (*http.Response, error) {
	if s.request == nil {
		return &http.Response{StatusCode: 200, Status: "200 OK", Header: http.Header{}, Body: http.NoBody}, nil
	}
	return s.request(r)
}

// Validate implements Mailer.
func (s *stage) Validate(m email.Message) []email.Problem {
	if m.From == "" {
		m.From = "shop@example.com"
	}
	return email.Validate(m)
}

// MessageID implements Mailer.
func (s *stage) MessageID(task string) string { return task + "@example.com" }

// Send implements Mailer.
func (s *stage) Send(_ context.Context, m email.Message) (email.Receipt, error) {
	s.mu.Lock()
	s.mails = append(s.mails, m)
	s.mu.Unlock()
	if s.mail == nil {
		return email.Receipt{MessageID: m.MessageID, Accepted: m.To}, nil
	}
	return s.mail(m)
}

func (s *stage) called() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// grpcTask is a call to shop.
func grpcTask(message string) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Grpc{Grpc: &outriggerv1.GrpcWork{Service: "shop", Method: "/shop.Shop/Buy", Message: []byte(message)}}}
}

func appTask(kind, payload string) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: kind, Payload: &outriggerv1.Payload{Data: []byte(payload)}}}}
}

func (s *stage) trySubmit(spec *outriggerv1.TaskSpec, key string) (*outriggerv1.SubmitTaskResponse, error) {
	return s.e.SubmitTask(s.t.Context(), &outriggerv1.SubmitTaskRequest{Task: spec, IdempotencyKey: key})
}

func (s *stage) submit(spec *outriggerv1.TaskSpec) *outriggerv1.Task {
	s.t.Helper()
	r, err := s.trySubmit(spec, "")
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetTask()
}

func (s *stage) get(id string) *outriggerv1.Task {
	s.t.Helper()
	r, err := s.e.GetTask(s.t.Context(), &outriggerv1.GetTaskRequest{Id: id, ShowPayload: true})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetTask()
}

// wait waits until a task has ended.
func (s *stage) wait(id string) *outriggerv1.Task {
	s.t.Helper()
	r, err := s.e.WaitTask(s.t.Context(), &outriggerv1.WaitTaskRequest{Id: id})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.GetTask()
}

// want fails the test unless the task is in that state.
func (s *stage) want(t *outriggerv1.Task, state outriggerv1.TaskState, attempts uint32) {
	s.t.Helper()
	if t.GetState() != state || t.GetAttempts() != attempts {
		s.t.Errorf("task of kind %s is %v after %d attempts (%s); want %v after %d", t.GetKind(), t.GetState(), t.GetAttempts(), t.GetError(), state, attempts)
	}
}

// wantStatus fails the test unless err has the code, and every text in its message.
func wantStatus(t *testing.T, err error, code codes.Code, texts ...string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Errorf("%v: %s; want %v", s.Code(), s.Message(), code)
	}
	for _, text := range texts {
		if !strings.Contains(s.Message(), text) {
			t.Errorf("%q does not say %q", s.Message(), text)
		}
	}
}

// violation returns the field of a status's BadRequest; empty: it has none.
func violation(err error) string {
	for _, d := range status.Convert(err).Details() {
		if b, ok := d.(*errdetails.BadRequest); ok && len(b.GetFieldViolations()) > 0 {
			return b.GetFieldViolations()[0].GetField()
		}
	}
	return ""
}

// sinceStart returns how far virtual time has come.
func sinceStart() time.Duration { return time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) }

func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func body(text string) io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }

// rot13 is a Seal that can be told from none, and is bound to its name.
type rot13 struct{}

func (rot13) Seal(dst []byte, name string, content []byte) ([]byte, error) {
	dst = append(append(dst, 1), name...)
	for _, b := range content {
		dst = append(dst, b+13)
	}
	return dst, nil
}

func (rot13) Open(dst []byte, name string, sealed []byte) ([]byte, error) {
	rest, ok := strings.CutPrefix(string(sealed), "\x01"+name)
	if !ok {
		return nil, errors.New("sealed for something else")
	}
	for _, b := range []byte(rest) {
		dst = append(dst, b-13)
	}
	return dst, nil
}
