package relay

import (
	"bytes"
	"encoding/base64"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// rawPeer reads frames into one buffer and calls handle for each; it allocates
// nothing per frame.
func rawPeer(c net.Conn, handle func(f *frame) (done bool)) error {
	in, have := make([]byte, 64<<10), 0
	var f frame // escapes, once
	for {
		n, err := c.Read(in[have:])
		if err != nil {
			return err
		}
		have += n
		at := 0
		for {
			var size int
			if f, size, err = parseFrame(in[at:have], minMaxFrameSize); err != nil || size == 0 {
				break
			}
			at += size
			if handle(&f) {
				return nil
			}
		}
		have = copy(in, in[at:have])
	}
}

// setStream writes a stream id into every frame of b.
func setStream(b []byte, id uint32) {
	for len(b) > 0 {
		b[5], b[6], b[7], b[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
		b = b[frameHeaderLen+int(b[0])<<16+int(b[1])<<8+int(b[2]):]
	}
}

// allocationsPerCall is what a unary call under a policy allocates in all, seen
// by peers that allocate nothing.
func allocationsPerCall(t *testing.T, p policy.Policy) float64 {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.ReadFull(c, make([]byte, len(clientPreface)))
		c.Write(appendSettings(nil))
		// Like every gRPC server, it names in the table what it said before.
		var encoded bytes.Buffer
		encoder := hpack.NewEncoder(&encoded)
		block := func(pairs ...string) []byte {
			encoded.Reset()
			for _, f := range fieldsOf(pairs...) {
				encoder.WriteField(f)
			}
			return encoded.Bytes()
		}
		makeAnswer := func() []byte {
			b := appendHeaderBlock(nil, 1, block(":status", "200", "content-type", "application/grpc"), false, minMaxFrameSize)
			b = append(appendFrameHeader(b, 5, frameData, 0, 1), 0, 0, 0, 0, 0)
			load := base64.RawStdEncoding.EncodeToString([]byte(orca(0.5)))
			return appendHeaderBlock(b, 1, block("grpc-status", "0", "endpoint-load-metrics-bin", load), true, minMaxFrameSize)
		}
		answer, repeated := makeAnswer(), makeAnswer()
		ack, credit, received := appendSettingsAck(nil), make([]byte, 0, 64), 0
		rawPeer(c, func(f *frame) bool {
			switch {
			case f.kind == frameSettings && !f.has(flagAck):
				c.Write(ack)
			case f.kind == frameData && f.has(flagEndStream):
				if received += len(f.payload); received > 1<<14 {
					c.Write(appendWindowUpdate(credit[:0], 0, uint32(received)))
					received = 0
				}
				setStream(answer, f.stream)
				c.Write(answer)
				answer = repeated
			}
			return false
		})
	})
	t.Cleanup(func() { l.Close(); served.Wait() })
	f := newFixture(t, p, l.Addr().String())
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write(appendSettings([]byte(clientPreface)))
	message := make([]byte, 100)
	// The first request puts its headers into the table, the others name them.
	var encoded bytes.Buffer
	encoder := hpack.NewEncoder(&encoded)
	request := func() []byte {
		encoded.Reset()
		for _, f := range grpcRequest {
			if f.Name == ":authority" {
				f.Value = "echo"
			}
			encoder.WriteField(f)
		}
		encoder.WriteField(hpack.HeaderField{Name: "grpc-timeout", Value: "2999999u", Sensitive: true})
		b := appendHeaderBlock(nil, 1, encoded.Bytes(), false, minMaxFrameSize)
		b = append(appendFrameHeader(b, 5+len(message), frameData, flagEndStream, 1), 0, 0, 0, 0, byte(len(message)))
		return append(b, message...)
	}
	id := uint32(1)
	call := func(request []byte) {
		setStream(request, id)
		c.Write(request)
		if err := rawPeerOnce(c, id); err != nil {
			t.Fatal(err)
		}
		id += 2
	}
	call(request())
	repeated := request()
	for range 500 {
		call(repeated)
	}
	const calls = 5000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range calls {
		call(repeated)
	}
	runtime.ReadMemStats(&after)

	perCall := float64(after.Mallocs-before.Mallocs) / calls
	t.Logf("%.2f allocations, %.0f bytes a call", perCall, float64(after.TotalAlloc-before.TotalAlloc)/calls)
	return perCall
}

func TestAllocationsPerCall(t *testing.T) {
	if n := allocationsPerCall(t, policy.Default()); n > 4 {
		t.Fatalf("%.2f allocations a call under the default policies, want at most 4", n)
	}
}

// everyPolicy has all of them on that leave a call to be answered by its
// endpoint. None of them has anything to do.
func everyPolicy() policy.Policy {
	return policy.Policy{
		Timeout: 3 * time.Second, PerTryTimeout: time.Second, Stream: policy.StreamLimits{IdleTimeout: time.Minute, MaxDuration: time.Hour}, Idempotent: true,
		Retry: policy.RetryPolicy{MaxAttempts: 3, Budget: policy.DefaultBudget()},
		Hedge: policy.HedgePolicy{Delay: 500 * time.Millisecond, DelayQuantile: 0.999, MaxAttempts: 2},
		Breaker: policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: breaker.Options{
			ConsecutiveFailures: 5, FailureRate: 0.5, MinimumCalls: 20, SlowRate: 0.8, SlowerThan: time.Second, HalfOpenProbes: 1}},
		Concurrency:   policy.ConcurrencyPolicy{Adaptive: true, MaxQueue: 128},
		RateLimit:     policy.RateLimitPolicy{PerSecond: 1e6, PerMethod: true, KeyHeader: "user-agent"},
		Throttle:      policy.ThrottlePolicy{Ratio: 2},
		Fallback:      policy.FallbackPolicy{Enabled: true},
		Defer:         policy.DeferPolicy{Mode: policy.DeferOnFailure},
		LoadBalancing: balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}},
	}
}

func TestPoliciesAllocateNothingPerCall(t *testing.T) {
	none := allocationsPerCall(t, policy.Policy{})
	for _, scope := range []policy.Scope{policy.ScopeService, policy.ScopeMethod, policy.ScopeEndpoint} {
		p := everyPolicy()
		p.Breaker.Scope = scope
		if all := allocationsPerCall(t, p); all-none > 0.1 { // the runtime's own now and then
			t.Errorf("scope %d: %.2f allocations a call under every policy, %.2f under none", scope, all, none)
		}
	}
}

var onceBuffer [64 << 10]byte

// rawPeerOnce reads until the stream's END_STREAM.
func rawPeerOnce(c net.Conn, id uint32) error {
	have := 0
	for {
		n, err := c.Read(onceBuffer[have:])
		if err != nil {
			return err
		}
		have += n
		at := 0
		for {
			f, size, err := parseFrame(onceBuffer[at:have], minMaxFrameSize)
			if err != nil || size == 0 {
				break
			}
			at += size
			if f.stream == id && f.kind == frameHeaders && f.has(flagEndStream) {
				return nil
			}
		}
		have = copy(onceBuffer[:], onceBuffer[at:have])
	}
}
