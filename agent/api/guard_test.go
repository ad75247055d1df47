package api

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// guardStream is a Guard stream of a test.
type guardStream struct {
	t      *testing.T
	rpc    outriggerv1.ResilienceService_GuardClient
	cancel context.CancelFunc
	got    []*outriggerv1.GuardAnswer
}

func (h *house) guard() *guardStream {
	ctx, cancel := context.WithCancel(h.context())
	h.t.Cleanup(cancel)
	return &guardStream{t: h.t, rpc: must[outriggerv1.ResilienceService_GuardClient](h.t)(h.resilience().Guard(ctx)), cancel: cancel}
}

func (g *guardStream) send(m *outriggerv1.GuardRequest) {
	g.t.Helper()
	if err := g.rpc.Send(m); err != nil {
		g.t.Fatal(err)
	}
}

// answer returns the next answer.
func (g *guardStream) answer() *outriggerv1.GuardAnswer {
	g.t.Helper()
	for len(g.got) == 0 {
		g.got = must[*outriggerv1.GuardResponse](g.t)(g.rpc.Recv()).GetAnswers()
	}
	a := g.got[0]
	g.got = g.got[1:]
	return a
}

// end returns what the stream ends with.
func (g *guardStream) end() error {
	for {
		if _, err := g.rpc.Recv(); err != nil {
			return err
		}
	}
}

func acquires(tags ...uint64) *outriggerv1.GuardRequest {
	m := &outriggerv1.GuardRequest{}
	for _, tag := range tags {
		m.Acquires = append(m.Acquires, &outriggerv1.GuardAcquire{Tag: tag, Request: greet()})
	}
	return m
}

func TestABatchIsAnsweredByTag(t *testing.T) {
	// Given a batch of good and bad operations,
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	g := h.guard()
	m := acquires(11, 12, 13, 14)
	m.Acquires[1].Request.Service = "greter"
	m.Acquires[2].Request.Method = "no slash"
	m.Reports = []*outriggerv1.GuardReport{{Tag: 15, Request: &outriggerv1.ReportRequest{PermitId: make([]byte, 16)}}, {Tag: 16, Request: &outriggerv1.ReportRequest{Code: 99}}}
	m.Renewals = []*outriggerv1.GuardRenewal{{Tag: 17, PermitId: []byte("x")}}
	// when it is sent, then each has the answer that is its own,
	g.send(m)
	got := map[uint64]codes.Code{}
	for range 7 {
		a := g.answer()
		got[a.GetTag()] = codes.Code(a.GetRefusal().GetCode())
		if a.GetRefusal() == nil && len(a.GetPermit().GetId()) != 16 {
			t.Errorf("%v", a)
		}
	}
	for tag, want := range map[uint64]codes.Code{11: codes.OK, 12: codes.NotFound, 13: codes.InvalidArgument, 14: codes.OK, 15: codes.NotFound, 16: codes.InvalidArgument, 17: codes.InvalidArgument} {
		if got[tag] != want {
			t.Errorf("%d: %v, want %v", tag, got[tag], want)
		}
	}
	// and the stream goes on.
	g.send(acquires(18))
	if a := g.answer(); a.GetTag() != 18 || a.GetPermit() == nil {
		t.Errorf("%v", a)
	}
}

func TestReportsComeBeforeRequests(t *testing.T) {
	// Given one slot, and who has it reports and asks in one message,
	h := newHouse(t)
	h.resource("greeter", bounded(1))
	g := h.guard()
	g.send(acquires(1))
	m := acquires(2)
	m.Reports = []*outriggerv1.GuardReport{{Request: &outriggerv1.ReportRequest{PermitId: g.answer().GetPermit().GetId()}}}
	m.Acquires[0].Request.Wait = nil
	g.send(m)
	// then it goes on; the report under no tag has no answer.
	if a := g.answer(); a.GetTag() != 2 || a.GetPermit() == nil {
		t.Errorf("%v", a)
	}
}

func TestMessagesThatBreakTheStream(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	for about, m := range map[string]*outriggerv1.GuardRequest{
		"an acquire without a tag": acquires(0),
		"too many operations":      {Cancels: make([]uint64, maxBatch+1)},
	} {
		g := h.guard()
		g.send(m)
		if err := g.end(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", about, err)
		}
	}
}

func TestABrokenStreamFreesItsPermits(t *testing.T) {
	// Given two slots that a stream has, one more that it waits for, and another
	// stream that waits,
	h := newHouse(t)
	s := h.resource("greeter", bounded(2))
	broken, other := h.guard(), h.guard()
	broken.send(acquires(1, 2, 3))
	broken.answer()
	broken.answer()
	other.send(acquires(4))
	eventually(t, "nobody waits", func() bool { return h.server.permits.outstanding.Load() == 4 })
	// when the first breaks,
	broken.cancel()
	// then the other has its permit, and nobody is to blame.
	if a := other.answer(); a.GetPermit() == nil {
		t.Fatalf("%v", a)
	}
	eventually(t, "permits of the broken stream are out", func() bool { return h.server.permits.outstanding.Load() == 1 })
	if count(s.Refusals(), "CANCELLED") != 3 || s.Recorder().Lifetime().Excluded != 3 {
		t.Errorf("%v", s.Refusals())
	}
}

func TestHalfAStreamIsNone(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	g := h.guard()
	g.send(acquires(1, 2))
	if err := g.rpc.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := g.end(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	eventually(t, "permits are out", func() bool { return h.server.permits.outstanding.Load() == 0 })
}

// breaking is a stream that panics when it is read.
type breaking struct {
	outriggerv1.ResilienceService_GuardServer
}

func (breaking) Context() context.Context { return context.Background() }
func (breaking) RecvMsg(any) error        { panic("a wall gave way") }

func TestAPanicEndsItsStreamAlone(t *testing.T) {
	h := newHouse(t)
	wantCode(t, h.server.permits.read(nil, breaking{}), codes.Internal)
}

func TestGuardStreamsAreBounded(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	streams := make([]*guardStream, maxGuards)
	for i := range streams {
		streams[i] = h.guard()
		streams[i].send(acquires(1))
		streams[i].answer()
	}
	late := h.guard()
	if err := late.end(); status.Code(err) != codes.ResourceExhausted {
		t.Fatal(err)
	}
	streams[0].cancel()
	eventually(t, "there is no room", func() bool {
		again := h.guard()
		_ = again.rpc.Send(acquires(1))
		_, err := again.rpc.Recv()
		return err == nil
	})
}

func TestAClientThatDoesNotReadIsNotReadEither(t *testing.T) {
	// Given a client that asks and asks, and reads no answer,
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	g := h.guard()
	sent := make(chan int, 1)
	go func() {
		n := 0
		for m := acquires(slices.Repeat([]uint64{1}, 500)...); g.rpc.Send(m) == nil; n++ {
		}
		sent <- n
	}()
	// when the agent stops reading it,
	before := int64(-1)
	eventually(t, "it is never stopped", func() bool {
		now := h.server.permits.outstanding.Load()
		same := now == before && now > 0
		before = now
		time.Sleep(100 * time.Millisecond)
		return same
	})
	// then others are served.
	other := h.guard()
	other.send(acquires(1))
	if a := other.answer(); a.GetPermit() == nil {
		t.Errorf("%v", a)
	}
	g.cancel()
	<-sent
}

func TestADrainWaitsForPermits(t *testing.T) {
	// Given a stream with a permit, one without, and a permit of Acquire,
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	busy, idle := h.guard(), h.guard()
	busy.send(acquires(1))
	v := busy.answer().GetPermit()
	idle.send(&outriggerv1.GuardRequest{Reports: []*outriggerv1.GuardReport{{Tag: 1, Request: &outriggerv1.ReportRequest{PermitId: v.GetId()}}}})
	idle.answer()
	alone := h.acquire()
	// when the agent drains,
	drained := make(chan error, 1)
	go func() { drained <- h.server.Drain(h.context()) }()
	// then the idle stream ends and says why,
	ended := wantCode(t, idle.end(), codes.Unavailable)
	if info, ok := ended.Details()[0].(*errdetails.ErrorInfo); !ok || info.GetReason() != "DRAINING" {
		t.Errorf("%v", ended.Details())
	}
	// there are no new permits,
	busy.send(acquires(2))
	if r := busy.answer().GetRefusal(); r.GetReason() != "DRAINING" || r.GetRetryDelay().AsDuration() != time.Second {
		t.Errorf("%v", r)
	}
	_, err := h.resilience().Acquire(h.context(), greet())
	wantCode(t, err, codes.Unavailable)
	// the busy stream ends once its permit is reported,
	busy.send(&outriggerv1.GuardRequest{Reports: []*outriggerv1.GuardReport{{Tag: 3, Request: &outriggerv1.ReportRequest{PermitId: v.GetId()}}}})
	if a := busy.answer(); a.GetTag() != 3 || a.GetRefusal() != nil {
		t.Errorf("%v", a)
	}
	wantCode(t, busy.end(), codes.Unavailable)
	// and the drain once all are.
	select {
	case err := <-drained:
		t.Fatalf("it is over while a permit is out: %v", err)
	default:
	}
	must[*outriggerv1.ReportResponse](t)(h.resilience().Report(h.context(), &outriggerv1.ReportRequest{PermitId: alone.GetId()}))
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}

func TestADrainHasAnEnd(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", policy.Policy{})
	g := h.guard()
	g.send(acquires(1, 2))
	g.answer()
	ctx, cancel := context.WithTimeout(h.context(), 20*time.Millisecond)
	defer cancel()
	if err := h.server.Drain(ctx); err == nil || err.Error() != "2 permits were not reported" {
		t.Fatal(err)
	}
	h.server.Shutdown(context.Background())
	if s := wantCode(t, g.end(), codes.Unavailable); s.Message() != "the agent is ending" {
		t.Error(s.Message())
	}
}

func TestShutdownEndsWhoWaits(t *testing.T) {
	h := newHouse(t)
	h.resource("greeter", bounded(1))
	h.acquire()
	failed := make(chan error, 1)
	go func() {
		_, err := h.resilience().Acquire(h.context(), greet())
		failed <- err
	}()
	eventually(t, "nobody waits", func() bool { return h.server.permits.outstanding.Load() == 2 })
	h.server.Shutdown(context.Background())
	wantCode(t, <-failed, codes.Unavailable)
}
