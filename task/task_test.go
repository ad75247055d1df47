package task

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// rules are the API's.
var rules = func() protovalidate.Validator {
	v, err := protovalidate.New()
	if err != nil {
		panic(err)
	}
	return v
}()

func TestWorkIsWhatTheAPITakes(t *testing.T) {
	for _, test := range []struct {
		name string
		got  *outriggerv1.TaskSpec
		want *outriggerv1.TaskSpec
	}{
		{"app", App("save", person{"Ada"}), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{
			Kind: "save", Payload: &outriggerv1.Payload{Data: []byte(`{"name":"Ada"}`), ContentType: "application/json"},
		}}}},
		{"app without a payload", App("save", nil), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: "save"}}}},
		{"app with bytes", App("save", []byte{1, 2}), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{
			Kind: "save", Payload: &outriggerv1.Payload{Data: []byte{1, 2}},
		}}}},
		{"app with a payload", App("save", &outriggerv1.Payload{Data: []byte("x"), ContentType: "text/plain"}), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{
			Kind: "save", Payload: &outriggerv1.Payload{Data: []byte("x"), ContentType: "text/plain"},
		}}}},
		{"grpc", GRPC("greeter", "/greeter.v1.Greeter/SayHello", []byte{8}), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Grpc{Grpc: &outriggerv1.GrpcWork{
			Service: "greeter", Method: "/greeter.v1.Greeter/SayHello", Message: []byte{8},
		}}}},
		{"http", HTTP(&outriggerv1.HttpWork{Url: "https://example.com"}), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Http{Http: &outriggerv1.HttpWork{Url: "https://example.com"}}}},
		{"email", Email(&outriggerv1.EmailWork{Subject: "hi"}), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Email{Email: &outriggerv1.EmailWork{Subject: "hi"}}}},
		{"chain", Chain(7, Step("save", App("save", nil), map[string]string{"app.payload": "input"})), &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Chain{Chain: &outriggerv1.ChainWork{
			Input: &outriggerv1.Payload{Data: []byte("7"), ContentType: "application/json"},
			Steps: []*outriggerv1.ChainStep{{
				Name: "save", Map: map[string]string{"app.payload": "input"},
				Task: &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: "save"}}},
			}},
		}}}},
	} {
		if !proto.Equal(test.got, test.want) {
			t.Errorf("%s: got %v; want %v", test.name, test.got, test.want)
		}
		if err := rules.Validate(test.got); err != nil {
			t.Errorf("%s: the API does not take it: %v", test.name, err)
		}
	}
}

func TestOptionsBecomeTheTasksFields(t *testing.T) {
	at := time.Date(2026, 11, 25, 8, 0, 0, 0, time.UTC)
	work := App("save", nil)
	work.Tags = []string{"a"}
	work.Retry = &outriggerv1.TaskRetry{Base: durationpb.New(time.Second), Max: durationpb.New(time.Minute)}
	got := Options{Queue: "mails", Priority: 4, RunAt: at, Deadline: at.Add(time.Hour), MaxAttempts: 3, Timeout: time.Minute, Tenant: "shop", Tags: []string{"b"}}.spec(proto.CloneOf(work))
	want := &outriggerv1.TaskSpec{
		Work: work.Work, Queue: "mails", Priority: 4, RunAt: timestamppb.New(at), Deadline: timestamppb.New(at.Add(time.Hour)),
		Retry:   &outriggerv1.TaskRetry{MaxAttempts: 3, Base: durationpb.New(time.Second), Max: durationpb.New(time.Minute)},
		Timeout: durationpb.New(time.Minute), Tenant: "shop", Tags: []string{"a", "b"},
	}
	if !proto.Equal(got, want) {
		t.Errorf("got %v; want %v", got, want)
	}
	if got := (Options{Delay: time.Second}).spec(App("save", nil)).GetDelay().AsDuration(); got != time.Second {
		t.Errorf("the delay is %v; want 1 s", got)
	}
	if got := (Options{}).spec(proto.CloneOf(work)); !proto.Equal(got, work) {
		t.Errorf("no options make %v; want %v", got, work)
	}
}

func TestDialReachesAnAgentAtAPortOrASocket(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "api")
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		a := newAgent(t)
		a.submit = func(*outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
			return &outriggerv1.SubmitTaskResponse{Task: &outriggerv1.Task{Id: "a"}}, nil
		}
		server := grpc.NewServer()
		outriggerv1.RegisterTaskServiceServer(server, a)
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		to := l.Addr().String()
		if network == "unix" {
			to = "unix:" + to
		}
		c, err := Dial(to)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Submit(t.Context(), App("save", nil), Options{}); err != nil || got.GetId() != "a" {
			t.Errorf("%s: got %v, %v", to, got, err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		server.Stop()
		<-served
	}
}

func TestDialRefusesNoAddress(t *testing.T) {
	if _, err := Dial("\x00"); err == nil || !strings.Contains(err.Error(), "invalid") {
		t.Errorf("Dial: %v; want an error", err)
	}
}
