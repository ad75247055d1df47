package relay

import (
	"context"
	"io"
	"math"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// orca encodes an OrcaLoadReport of 100 requests a second at a utilization.
func orca(used float64) string {
	b := protowire.AppendTag(nil, 1, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(used))
	b = protowire.AppendTag(b, 6, protowire.Fixed64Type)
	return string(protowire.AppendFixed64(b, math.Float64bits(100)))
}

// byReports is a policy that goes by load reports at once.
func byReports() policy.Policy {
	return policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.WeightedRoundRobin,
		LoadReports: balancer.LoadReports{On: true, WeightUpdatePeriod: balancer.MinWeightUpdatePeriod}}}
}

// reported returns the weight that the service's only endpoint has.
func (f *fixture) reported() float64 {
	return math.Round(f.service.ReportedWeight(f.service.Endpoints().All()[0], f.relay.now()))
}

func TestEndpointsReportTheirLoad(t *testing.T) {
	text := metadata.Pairs("endpoint-load-metrics", "TEXT cpu_utilization=0.25, rps_fractional=100")
	for name, test := range map[string]struct {
		answer func(ctx context.Context) error
		retry  bool // the head of the answer is held
		want   float64
	}{
		"in trailers": {answer: func(ctx context.Context) error {
			return grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
		}, want: 200},
		"in trailers behind a head that is held": {retry: true, answer: func(ctx context.Context) error {
			return grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
		}, want: 200},
		"of an answer that is trailers alone": {answer: func(ctx context.Context) error {
			grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
			return status.Error(codes.NotFound, "nobody")
		}, want: 200},
		"of an error that is tried again": {retry: true, answer: func(ctx context.Context) error {
			grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
			return status.Error(codes.Unavailable, "not now")
		}, want: 200},
		"as text in trailers": {answer: func(ctx context.Context) error { return grpc.SetTrailer(ctx, text) }, want: 400},
		"as text in headers":  {answer: func(ctx context.Context) error { return grpc.SetHeader(ctx, text) }, want: 400},
		"in what is no report": {answer: func(ctx context.Context) error {
			return grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", "\x09"))
		}, want: 0},
		"not at all": {answer: func(context.Context) error { return nil }, want: 0},
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := (&echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) { return in, test.answer(ctx) }}).start(t)
			p := byReports()
			if test.retry {
				p.Retry = retrying(2).Retry
			}
			f := newFixture(t, p, address)
			_, _ = unary(testContext(t), f.client(t), []byte("hello"))
			if w := f.reported(); w != test.want {
				t.Errorf("weighs %v; want %v", w, test.want)
			}
		})
	}
}

func TestAStreamReportsAtItsEnd(t *testing.T) {
	address, _ := (&echoServer{}).start(t, grpc.StreamInterceptor(func(s any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ss.SetTrailer(metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
		return handle(s, ss)
	}))
	f := newFixture(t, byReports(), address)
	stream, err := f.client(t).NewStream(testContext(t), &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(wrapperspb.Bytes([]byte{3})); err != nil {
		t.Fatal(err)
	}
	stream.CloseSend()
	for err = nil; err == nil; {
		err = stream.RecvMsg(new(wrapperspb.BytesValue))
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	if w := f.reported(); w != 200 {
		t.Errorf("weighs %v; want 200", w)
	}
}

func TestTheCallerGetsTheReportAsItCame(t *testing.T) {
	address, _ := (&echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) {
		return in, grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
	}}).start(t)
	var trailer metadata.MD
	if _, err := unary(testContext(t), newFixture(t, byReports(), address).client(t), nil, grpc.Trailer(&trailer)); err != nil {
		t.Fatal(err)
	}
	if got := trailer.Get("endpoint-load-metrics-bin"); len(got) != 1 || got[0] != orca(0.5) {
		t.Errorf("%q", got)
	}
}

func TestAReportIsPassedOnWithoutBeingIndexed(t *testing.T) {
	list := &fieldList{fields: fieldsOf("grpc-status", "0", "endpoint-load-metrics-bin", "CQ", "endpoint-load-metrics", "TEXT eps=1")}
	var res response
	if why := res.parse(list); why != "" {
		t.Fatal(why)
	}
	if want := (policy.LoadReportHeaders{Binary: "CQ", Text: "TEXT eps=1"}); res.load != want {
		t.Errorf("read %+v", res.load)
	}
	for i, f := range list.fields {
		if f.Sensitive != (i > 0) {
			t.Errorf("%v", f)
		}
	}
	if why := res.parse(&fieldList{fields: fieldsOf("endpoint-load-metrics", "TEXT eps=1\r\nx: y")}); why == "" {
		t.Error("a line break in a report was taken")
	}
}

func TestNobodyListensWhereCallsAreNotBalancedByReports(t *testing.T) {
	address, _ := (&echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) {
		return in, grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(0.5)))
	}}).start(t)
	f := newFixture(t, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.WeightedRoundRobin}}, address)
	if _, err := unary(testContext(t), f.client(t), nil); err != nil {
		t.Fatal(err)
	}
	f.service.Update(policy.Settings{Policy: byReports()})
	if w := f.reported(); w != 0 {
		t.Errorf("weighs %v, though nobody asked", w)
	}
}

func TestCallsFollowReports(t *testing.T) {
	// Given two endpoints that report 1 to 3,
	var servers [2]*echoServer
	var addresses []string
	for i, used := range []float64{0.75, 0.25} {
		servers[i] = &echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) {
			return in, grpc.SetTrailer(ctx, metadata.Pairs("endpoint-load-metrics-bin", orca(used)))
		}}
		address, _ := servers[i].start(t)
		addresses = append(addresses, address)
	}
	f := newFixture(t, byReports(), addresses...)
	cc := f.client(t)
	// then calls are so too, once the weights were looked up.
	for deadline := time.Now().Add(10 * time.Second); ; {
		before := [2]int64{servers[0].calls.Load(), servers[1].calls.Load()}
		for range 400 {
			if _, err := unary(testContext(t), cc, nil); err != nil {
				t.Fatal(err)
			}
		}
		few, many := servers[0].calls.Load()-before[0], servers[1].calls.Load()-before[1]
		if few >= 99 && few <= 101 && many >= 299 && many <= 301 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d and %d of 400 calls; want 100 and 300", few, many)
		}
	}
}
