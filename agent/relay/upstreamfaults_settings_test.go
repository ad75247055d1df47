package relay

import (
	"bytes"
	"context"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

func maxStreams(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n}
}

// oneConnection keeps calls from finding a way around a limit of streams.
var oneConnection = Options{Limits: Limits{UpstreamConnections: 1}}

// start makes a call in the background.
func (s *stage) start(t testing.TB) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.call(t) }()
	return done
}

// TestMaxConcurrentStreamsOfZero: an endpoint that takes no call keeps it
// waiting until the deadline; the endpoint never sees it.
func TestMaxConcurrentStreamsOfZero(t *testing.T) {
	s := newStageWith(t, oneConnection, policy.Policy{Timeout: 200 * time.Millisecond}, forEach(func(c *scriptConn, id uint32) {
		t.Errorf("stream %d was opened", id)
	}).start(t, maxStreams(0)))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.DeadlineExceeded, reason: "TIMEOUT"})
	if n := s.waiting(); n != 0 {
		t.Errorf("%d calls wait still", n)
	}
}

// TestMaxConcurrentStreamsOfZeroThenOne: a call that waits goes on as soon as
// it may.
func TestMaxConcurrentStreamsOfZeroThenOne(t *testing.T) {
	raise := make(chan struct{})
	s := newStageWith(t, oneConnection, policy.Policy{}, upstreamScript(func(c *scriptConn) {
		<-raise
		c.WriteSettings(maxStreams(1))
		forEach((*scriptConn).answer)(c)
	}).start(t, maxStreams(0)))
	call := s.start(t)
	waitFor(t, func() bool { return s.waiting() == 1 })

	began := time.Now()
	close(raise)

	s.judge(t, began, <-call, verdict{code: codes.OK})
}

// TestMaxConcurrentStreamsLoweredInFlight: what is under way finishes, nothing
// new begins until there is room, and the limit may be raised again.
func TestMaxConcurrentStreamsLoweredInFlight(t *testing.T) {
	lowered, finish, raise := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := newStageWith(t, oneConnection, policy.Policy{}, upstreamScript(func(c *scriptConn) {
		c.inFlight(2)
		c.WriteSettings(maxStreams(1))
		c.heard()
		close(lowered)
		<-finish
		c.answer(1)
		if !c.heard() { // a third stream here would be one too many
			t.Error("the connection ended")
		}
		c.answer(3)
		c.answer(c.nextHeaders()) // one may run again
		<-raise
		c.WriteSettings(maxStreams(100))
		forEach((*scriptConn).answer)(c)
	}).start(t))
	first, second := s.start(t), s.start(t)
	<-lowered
	third := s.start(t)
	waitFor(t, func() bool { return s.waiting() == 1 })

	began := time.Now()
	close(finish)

	for _, call := range []<-chan error{first, second, third} {
		s.judge(t, began, <-call, verdict{code: codes.OK})
	}
	close(raise)
	s.judge(t, time.Now(), s.call(t), verdict{code: codes.OK})
}

// TestMaxConcurrentStreamsLoweredToZeroInFlight: the call under way finishes;
// the next one waits, and its deadline holds.
func TestMaxConcurrentStreamsLoweredToZeroInFlight(t *testing.T) {
	lowered, finish := make(chan struct{}), make(chan struct{})
	s := newStageWith(t, oneConnection, policy.Policy{}, upstreamScript(func(c *scriptConn) {
		c.inFlight(1)
		c.WriteSettings(maxStreams(0))
		c.heard()
		close(lowered)
		<-finish
		c.answer(1)
		if id := c.nextHeaders(); id != 0 {
			t.Errorf("stream %d was opened", id)
		}
	}).start(t))
	first := s.start(t)
	<-lowered
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()

	began := time.Now()
	_, err := unary(ctx, s.caller, nil)
	close(finish)

	if status.Code(err) != codes.DeadlineExceeded || time.Since(began) > soon {
		t.Errorf("the call that waited: %v after %v", err, time.Since(began))
	}
	s.judge(t, time.Now(), <-first, verdict{code: codes.OK})
}

// headerBlocks makes a script that hands the header block of each request to
// seen, before it answers; between runs before each answer but the first.
func headerBlocks(seen chan<- []byte, between func(c *scriptConn)) upstreamScript {
	return func(c *scriptConn) {
		for n := 0; ; n++ {
			id := uint32(0)
			if !c.until(func(f http2.Frame) bool {
				h, ok := f.(*http2.HeadersFrame)
				if ok {
					id = h.StreamID
					seen <- bytes.Clone(h.HeaderBlockFragment())
				}
				return ok
			}) {
				return
			}
			if n == 0 {
				between(c)
			}
			c.answer(id)
		}
	}
}

func tableSize(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingHeaderTableSize, Val: n}
}

// TestHeaderTableSizeOfZero: every block stands for itself, and the first
// signals the size (RFC 7541, 4.2).
func TestHeaderTableSizeOfZero(t *testing.T) {
	blocks := make(chan []byte, 3)
	s := newStageWith(t, Options{}, policy.Policy{}, headerBlocks(blocks, func(*scriptConn) {}).start(t, tableSize(0)))

	for range 3 {
		began := time.Now()
		_, err := unary(context.Background(), s.caller, nil) // no deadline: grpc-timeout would differ
		s.judge(t, began, err, verdict{code: codes.OK})
	}

	first, second, third := <-blocks, <-blocks, <-blocks
	if first[0] != 0x20 {
		t.Errorf("the first block begins with %#x, want a size update to 0 (0x20)", first[0])
	}
	if !bytes.Equal(second, third) || !bytes.Equal(first[1:], second) {
		t.Errorf("the blocks differ:\n%x\n%x\n%x", first, second, third)
	}
}

// TestHeaderTableSizeChangedInFlight: the next block signals what the table
// was lowered to, and, where it was raised again meanwhile, that too.
func TestHeaderTableSizeChangedInFlight(t *testing.T) {
	for name, row := range map[string]struct {
		sizes []uint32
		want  []byte // how the next block begins
	}{
		"lowered to 0":                {[]uint32{0}, []byte{0x20}},
		"lowered to 100":              {[]uint32{100}, []byte{0x3f, 0x45}},
		"lowered and raised":          {[]uint32{0, 4096}, []byte{0x20, 0x3f, 0xe1, 0x1f}},
		"raised past what we use":     {[]uint32{1 << 20}, []byte{0x3f, 0xe1, 0x1f}},
		"lowered, raised and lowered": {[]uint32{10, 4096, 100}, []byte{0x2a, 0x3f, 0x45}},
	} {
		t.Run(name, func(t *testing.T) {
			blocks := make(chan []byte, 3)
			s := newStage(t, headerBlocks(blocks, func(c *scriptConn) {
				for _, n := range row.sizes {
					c.WriteSettings(tableSize(n))
				}
				c.heard()
			}))

			for range 3 {
				s.judge(t, time.Now(), s.call(t), verdict{code: codes.OK})
			}

			<-blocks
			second := <-blocks
			if !bytes.HasPrefix(second, row.want) {
				t.Errorf("the block begins with %x, want %x", second[:5], row.want)
			}
		})
	}
}

// TestHeaderTableLoweredIsObeyed: a decoder that forgets its table at the
// change reads every later block.
func TestHeaderTableLoweredIsObeyed(t *testing.T) {
	for _, size := range []uint32{0, 40, 200} {
		s := newStage(t, func(c *scriptConn) {
			c.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
			for n := 0; ; n++ {
				id := uint32(0)
				if !c.until(func(f http2.Frame) bool {
					h, ok := f.(*http2.MetaHeadersFrame)
					if ok {
						id = h.StreamID
						if h.PseudoValue("path") != "/test.Echo/Unary" {
							t.Errorf("call %d: %v", n, h.Fields)
						}
					}
					return ok
				}) {
					return
				}
				if n == 1 {
					c.WriteSettings(tableSize(size))
					c.heard()
					c.ReadMetaHeaders.SetAllowedMaxDynamicTableSize(size)
				}
				c.answer(id)
			}
		})
		for range 4 {
			s.judge(t, time.Now(), s.call(t), verdict{code: codes.OK})
		}
	}
}

// TestMaxFrameSizeRaisedAndLowered: frames grow no longer than allowed, and
// after the acknowledgement of a lower limit that one holds.
func TestMaxFrameSizeRaisedAndLowered(t *testing.T) {
	frameSize := func(n uint32) http2.Setting { return http2.Setting{ID: http2.SettingMaxFrameSize, Val: n} }
	limits := []uint32{100_000, minMaxFrameSize, 50_000}
	longest := make(chan uint32, len(limits))
	s := newStage(t, func(c *scriptConn) {
		c.SetMaxReadFrameSize(maxMaxFrameSize)
		c.WriteWindowUpdate(0, 1<<24)
		for i := range limits {
			id, most := c.nextHeaders(), uint32(0)
			if id == 0 || !c.until(func(f http2.Frame) bool {
				most = max(most, f.Header().Length)
				d, ok := f.(*http2.DataFrame)
				return ok && d.StreamEnded()
			}) {
				return
			}
			longest <- most
			if i+1 < len(limits) {
				c.WriteSettings(frameSize(limits[i+1]))
				c.heard()
			}
			c.answer(id)
		}
		c.drain()
	}, frameSize(limits[0]), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24})

	for _, limit := range limits {
		began := time.Now()
		_, err := unary(testContext(t), s.caller, make([]byte, 200_000))

		if s.judge(t, began, err, verdict{code: codes.OK}); err != nil {
			return
		}
		if most := <-longest; most > limit {
			t.Errorf("a frame of %d bytes, where %d are allowed", most, limit)
		}
	}
}
