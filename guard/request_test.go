package guard

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestARequestLeavesNothingOfTheOneBefore(t *testing.T) {
	q := &outriggerv1.AcquireRequest{}
	all := Request{
		Service: "a", Method: "/b", Timeout: time.Second, Wait: 2 * time.Second, Lease: 3 * time.Second, Criticality: Sheddable,
		Metadata: map[string]string{"k": "v"}, Idempotent: true, NoRetry: true,
	}
	all.fill(context.Background(), q)
	want := &outriggerv1.AcquireRequest{
		Service: "a", Method: "/b", Timeout: durationpb.New(time.Second), Wait: durationpb.New(2 * time.Second), Lease: durationpb.New(3 * time.Second),
		Criticality: outriggerv1.Criticality_SHEDDABLE, Metadata: map[string]string{"k": "v"}, Idempotent: true, NoRetry: true,
	}
	if !proto.Equal(q, want) {
		t.Errorf("%v", q)
	}
	(&Request{Service: "c", Wait: NoWait}).fill(context.Background(), q)
	if want := (&outriggerv1.AcquireRequest{Service: "c", Wait: &durationpb.Duration{}}); !proto.Equal(q, want) {
		t.Errorf("%v", q)
	}
}

func TestTheSmallestTimeCounts(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	q := &outriggerv1.AcquireRequest{}
	for timeout, most := range map[time.Duration]time.Duration{0: time.Hour, time.Minute: time.Minute, 2 * time.Hour: time.Hour} {
		(&Request{Timeout: timeout}).fill(ctx, q)
		if got := q.GetTimeout().AsDuration(); got > most || got < most-time.Minute {
			t.Errorf("timeout %v: %v", timeout, got)
		}
	}
}

func TestBatchesFitTheAgent(t *testing.T) {
	// Given operations small and great,
	for _, size := range []int{0, 1000, 4000} {
		var b batch
		n := 0
		for {
			op := newOperation(acquire)
			(&Request{Service: strings.Repeat("s", size/4), Metadata: map[string]string{"k": strings.Repeat("v", size)}}).fill(context.Background(), &op.request)
			op.setTag(1 << 62)
			if !b.fits(op) {
				break
			}
			b.add(op)
			n++
		}
		// then a full batch is within what the agent takes.
		if bytes := proto.Size(&b.message); bytes > 64<<10 || n > 1024 || n < 2 {
			t.Errorf("%d operations, %d bytes", n, bytes)
		}
		b.reset()
		if proto.Size(&b.message) != 0 {
			t.Error("it is not empty")
		}
	}
}
