package conformance

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/policy"
)

// wire is one end of an HTTP/2 connection, frame by frame.
type wire struct {
	net.Conn
	framer *http2.Framer
	pongs  chan struct{}
	done   chan struct{}
	why    error // it ended; once done is closed

	mu sync.Mutex // writes
}

func newWire(nc net.Conn) *wire {
	w := &wire{Conn: nc, framer: http2.NewFramer(nc, nc), pongs: make(chan struct{}, 1), done: make(chan struct{})}
	w.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return w
}

// write writes frames, undisturbed.
func (w *wire) write(do func(f *http2.Framer) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return do(w.framer)
}

// block encodes a header block without the dynamic table.
func block(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(pairs); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // into memory
	}
	return b.Bytes()
}

func headers(stream uint32, end bool, pairs ...string) func(*http2.Framer) error {
	return func(f *http2.Framer) error {
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block(pairs...), EndHeaders: true, EndStream: end})
	}
}

// emptyMessage is a gRPC message of no bytes.
var emptyMessage = make([]byte, 5)

func message(stream uint32, end bool) func(*http2.Framer) error {
	return func(f *http2.Framer) error { return f.WriteData(stream, end, emptyMessage) }
}

// read handles frames until the connection ends: on takes those that are about
// streams.
func (w *wire) read(on func(http2.Frame)) {
	defer close(w.done)
	for {
		frame, err := w.framer.ReadFrame()
		if err != nil {
			w.why = errors.Join(w.why, err)
			return
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = w.write((*http2.Framer).WriteSettingsAck)
			}
		case *http2.PingFrame:
			if f.IsAck() {
				w.pongs <- struct{}{}
			} else {
				err = w.write(func(to *http2.Framer) error { return to.WritePing(true, f.Data) })
			}
		case *http2.GoAwayFrame:
			w.why = fmt.Errorf("GOAWAY %v: %s", f.ErrCode, f.DebugData())
		default:
			on(frame)
		}
		if err != nil {
			return
		}
	}
}

// ping returns once the peer has handled what was written before.
func (w *wire) ping() error {
	if err := w.write(func(f *http2.Framer) error { return f.WritePing(false, [8]byte{1}) }); err != nil {
		return err
	}
	select {
	case <-w.pongs:
		return nil
	case <-w.done:
		return fmt.Errorf("the connection ended: %w", w.why)
	case <-time.After(patience):
		return fmt.Errorf("no answer to a PING within %v", patience)
	}
}

// client is the app: every call is a stream of one connection.
type client struct {
	*wire

	state   sync.Mutex
	next    uint32
	streams map[string]uint32 // by call
	answers map[uint32]map[string]string
	over    map[uint32]string // how streams ended
}

func dialClient(address string) (*client, error) {
	nc, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &client{wire: newWire(nc), next: 1, streams: make(map[string]uint32), answers: make(map[uint32]map[string]string), over: make(map[uint32]string)}
	if _, err := io.WriteString(nc, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := c.write(func(f *http2.Framer) error { return f.WriteSettings() }); err != nil {
		return nil, err
	}
	go c.read(c.frame) // not before: nothing may come ahead of SETTINGS
	return c, nil
}

func (c *client) frame(frame http2.Frame) {
	c.state.Lock()
	defer c.state.Unlock()
	id := frame.Header().StreamID
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		if c.answers[id] == nil {
			c.answers[id] = make(map[string]string)
		}
		for _, h := range f.Fields {
			c.answers[id][h.Name] = h.Value
		}
		if f.StreamEnded() {
			c.over[id] = outcomeOf(c.answers[id])
		}
	case *http2.RSTStreamFrame:
		if c.over[id] == "" {
			c.over[id] = returned(policy.Internal)
			if f.ErrCode == http2.ErrCodeRefusedStream {
				c.over[id] = returned(policy.Unavailable)
			}
		}
	}
}

// outcomeOf reads what an answer's headers and trailers say.
func outcomeOf(h map[string]string) string {
	n, err := strconv.Atoi(h["grpc-status"])
	if err != nil {
		return "an answer without grpc-status"
	}
	code := policy.Code(n)
	if h["outrigger-fallback"] != "" {
		return fallback(code)
	}
	if details, err := base64.RawStdEncoding.DecodeString(h["grpc-status-details-bin"]); err == nil {
		s := &spb.Status{}
		if proto.Unmarshal(details, s) == nil {
			if reason := reasonIn(s); reason != "" {
				return outcomeFor(reason, code)
			}
		}
	}
	return returned(code)
}

// reasonIn returns what an agent's answer has in its ErrorInfo, or "".
func reasonIn(s *spb.Status) string {
	for _, any := range s.GetDetails() {
		info := &errdetails.ErrorInfo{}
		if any.UnmarshalTo(info) == nil && info.GetDomain() == policy.Domain {
			return info.GetReason()
		}
	}
	return ""
}

// outcomeFor tells a refusal from an attempt's own end: that there was no
// connection, or that it broke, is what the script said.
func outcomeFor(reason string, code policy.Code) string {
	if reason == policy.ConnectFailed.String() || reason == policy.ConnectionLost.String() {
		return returned(code)
	}
	return "refused " + reason
}

func (c *client) send(name string, w with) error {
	c.state.Lock()
	id := c.next
	c.next += 2
	c.streams[name] = id
	c.state.Unlock()
	pairs := []string{":method", "POST", ":scheme", "http", ":path", w.method(), ":authority", "subject", "content-type", "application/grpc", "te", "trailers", "traceparent", name}
	if w.Timeout != nil {
		pairs = append(pairs, "outrigger-timeout-ms", strconv.FormatInt(w.Timeout.Milliseconds(), 10))
	}
	if w.Criticality != "" {
		pairs = append(pairs, "outrigger-criticality", w.Criticality)
	}
	if w.NoRetry {
		pairs = append(pairs, "outrigger-retry", "off")
	}
	for k, v := range w.Metadata {
		pairs = append(pairs, k, v)
	}
	return c.write(func(f *http2.Framer) error {
		return errors.Join(headers(id, false, pairs...)(f), message(id, !w.Stream)(f))
	})
}

func (c *client) stream(name string) uint32 {
	c.state.Lock()
	defer c.state.Unlock()
	return c.streams[name]
}

func (c *client) say(name string) error { return c.write(message(c.stream(name), false)) }

func (c *client) reset(name string) error {
	id := c.stream(name)
	return c.write(func(f *http2.Framer) error { return f.WriteRSTStream(id, http2.ErrCodeCancel) })
}

// outcome says how a call ended; empty: it did not.
func (c *client) outcome(name string) string {
	c.state.Lock()
	defer c.state.Unlock()
	return c.over[c.streams[name]]
}

// open returns the calls that have no answer.
func (c *client) open() (all []string) {
	c.state.Lock()
	defer c.state.Unlock()
	for name, id := range c.streams {
		if c.over[id] == "" {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

func (c *client) close() {
	c.Close()
	<-c.done
}

// upstream is an endpoint that holds requests until it is told what to answer.
type upstream struct {
	listener net.Listener
	work     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	wires    []*wire
	requests map[string]*held // by traceparent
	arrived  map[string]int
}

// held is a request that has come, and its stream.
type held struct {
	wire   *wire
	stream uint32
	begun  bool
	over   bool // answered, or reset; guarded by upstream.mu
	of     *upstream
}

func startUpstream() (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{listener: l, requests: make(map[string]*held), arrived: make(map[string]int)}
	u.work.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			u.work.Go(func() { u.serve(nc) })
		}
	})
	return u, nil
}

func (u *upstream) serve(nc net.Conn) {
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	w := newWire(nc)
	u.mu.Lock()
	if u.closed {
		u.mu.Unlock()
		return
	}
	u.wires = append(u.wires, w)
	u.mu.Unlock()
	if w.write(func(f *http2.Framer) error { return f.WriteSettings() }) != nil {
		return
	}
	w.read(func(frame http2.Frame) {
		u.mu.Lock()
		defer u.mu.Unlock()
		id := frame.Header().StreamID
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == "traceparent" {
					u.arrived[h.Value]++
					u.requests[h.Value] = &held{wire: w, stream: id, of: u}
				}
			}
		case *http2.RSTStreamFrame:
			for _, h := range u.requests {
				if h.wire == w && h.stream == id {
					h.over = true
				}
			}
		}
	})
}

// request returns the request of an attempt, or nil.
func (u *upstream) request(id string) *held {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.requests[id]
}

// counts returns how often each attempt came.
func (u *upstream) counts() map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make(map[string]int, len(u.arrived))
	for id, n := range u.arrived {
		all[id] = n
	}
	return all
}

// open returns the requests that were neither answered nor reset.
func (u *upstream) open() (all []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, h := range u.requests {
		if !h.over {
			all = append(all, id)
		}
	}
	return all
}

func (u *upstream) close() {
	u.listener.Close()
	u.mu.Lock()
	u.closed = true
	for _, w := range u.wires {
		w.Close()
	}
	u.mu.Unlock()
	u.work.Wait()
}

// begin sends the head of an answer and a message.
func (h *held) begin() error {
	h.begun = true
	if err := h.wire.write(headers(h.stream, false, ":status", "200", "content-type", "application/grpc")); err != nil {
		return err
	}
	if err := h.wire.write(message(h.stream, false)); err != nil {
		return err
	}
	return h.wire.ping()
}

// end sends what the script says, and returns once the relay has it.
func (h *held) end(s how) error {
	h.of.mu.Lock()
	h.over = true
	h.of.mu.Unlock()
	trailers := []string{"grpc-status", strconv.Itoa(int(s.Code))}
	if s.Pushback != nil {
		trailers = append(trailers, "grpc-retry-pushback-ms", strconv.FormatInt(time.Duration(*s.Pushback).Milliseconds(), 10))
		if *s.Pushback < 0 {
			trailers[len(trailers)-1] = "-1"
		}
	}
	var err error
	switch {
	case s.Lost:
		return errors.Join(h.wire.Close())
	case s.Unprocessed:
		err = h.wire.write(func(f *http2.Framer) error { return f.WriteRSTStream(h.stream, http2.ErrCodeRefusedStream) })
	case h.begun:
		err = h.wire.write(headers(h.stream, true, trailers...))
	case s.Code != 0: // trailers only
		err = h.wire.write(headers(h.stream, true, append([]string{":status", "200", "content-type", "application/grpc"}, trailers...)...))
	default:
		if err = h.begin(); err == nil {
			err = h.wire.write(headers(h.stream, true, trailers...))
		}
	}
	if err != nil {
		return err
	}
	return h.wire.ping()
}
