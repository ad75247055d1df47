package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// side is what the two kinds of connection do differently. Its methods are
// called on the connection's reader goroutine, unlocked.
type side interface {
	// begin reads what stands before the first frame and returns how long it
	// was; 0: more bytes are wanted.
	begin(b *batch, in []byte) (int, error)
	// headers takes a header block. The fields are valid during the call.
	headers(b *batch, stream uint32, fields *fieldList, end bool) error
	// goAway says that the peer takes no stream above last.
	goAway(b *batch, last uint32, code errCode, debug string)
	// settled says that the peer's first SETTINGS came.
	settled(b *batch)
	// pong says that the peer answered a PING.
	pong(b *batch, data uint64)
	// lost says that the connection is over. Nothing follows.
	lost(b *batch, err error)
}

// conn is an HTTP/2 connection, to an app or to an endpoint.
type conn struct {
	relay  *Relay
	sock   *socket
	side   side
	peer   string // address, for messages
	serial uint32

	// The reader's own.
	in          *[readBufferLen]byte
	have        int // bytes of in not consumed yet
	begun       bool
	gotSettings bool
	dec         *hpack.Decoder
	fields      fieldList
	block       []byte // header block that CONTINUATION frames extend
	blockStream uint32 // its stream; 0: none is open
	blockEnd    bool
	blocks      uint64 // header blocks that began without ending
	frames      uint64 // whole frames that came
	received    int64
	unowed      int64 // received, but not granted anew yet
	nuisance    nuisance
	resets      nuisance // those of streams, which nothing earns back
	lastStream  uint32   // highest stream id that the peer opened

	granted atomic.Int64 // how many bytes the peer may send on the connection
	flooded atomic.Bool  // the peer makes output and does not read it
	heard   atomic.Int64 // Instant of the last read
	// condemned is why the connection has to end, found by another goroutine
	// than the reader.
	condemned atomic.Pointer[connError]

	mu           sync.Mutex
	out          *buffer // what waits to be written
	inWrite      int     // bytes handed to the socket and not taken yet
	writing      bool    // somebody writes; it takes what is added meanwhile
	touchedBy    *batch
	closeAfter   bool // close once everything is written
	closed       bool // nothing more goes out
	enc          *hpack.Encoder
	encoded      headerSink
	templates    templates
	window       int64 // how many bytes the peer takes on the connection
	peerWindow   int64 // and on each new stream
	peerMaxFrame int
	peerStreams  uint32 // its MAX_CONCURRENT_STREAMS
	streams      map[uint32]*leg
	blocked      legList // wait for the connection's window or output
	draining     bool    // no new streams
	greeted      bool    // our SETTINGS went out
	updates      int     // WINDOW_UPDATEs that DATA we sent is worth
	finished     int     // calls that ended well since the last reset
	carried      bool    // DATA or HEADERS came since somebody looked
	writers      sync.WaitGroup
}

// init prepares a connection whose side is s.
func (c *conn) init(r *Relay, sock *socket, s side, peer string) {
	c.relay, c.sock, c.side, c.peer = r, sock, s, peer
	c.serial = r.serial.Add(1)
	c.window, c.peerWindow = defaultWindow, defaultWindow
	c.peerMaxFrame, c.peerStreams = minMaxFrameSize, unlimitedStreams
	c.streams = make(map[uint32]*leg)
	c.granted.Store(defaultWindow)
	c.fields.limit = r.limits.HeaderList
	c.dec = hpack.NewDecoder(defaultTableSize, c.fields.add)
	c.dec.SetMaxStringLength(headerBlockFactor * r.limits.HeaderList)
	c.enc = hpack.NewEncoder(&c.encoded)
}

// greet queues this side's SETTINGS and opens the connection's window.
func (c *conn) greet(b *batch, settings ...setting) {
	l := &c.relay.limits
	settings = append(settings,
		setting{settingInitialWindowSize, uint32(l.firstWindow())},
		setting{settingMaxHeaderListSize, uint32(l.HeaderList)})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
	out := appendSettings(c.pending(), settings...)
	if more := l.ConnectionWindow - defaultWindow; more > 0 {
		out = appendWindowUpdate(out, connectionStream, uint32(more))
		c.granted.Add(int64(more))
	}
	c.output(b, out)
}

// serve reads until the connection ends. It returns once nothing of the
// connection runs any more.
func (c *conn) serve() {
	b := newBatch()
	err := c.readAll(b)
	b.now = c.relay.now()
	if why := c.condemned.Load(); why != nil {
		err = why
	}
	var bad *connError
	if errors.As(err, &bad) {
		c.relay.countProtocolError(bad)
		c.relay.logger.Warn("connection ended: the peer broke HTTP/2", "peer", c.peer, "error", bad.Error())
		c.goodbye(b, bad)
		b.flush()
		if bad.cut != cutStalled && bad.cut != cutUnread {
			c.linger() // who does not read would not read why
		}
	}
	if d, ok := c.side.(*downConn); ok && d.handOver(err) {
		return
	}
	c.shut()
	c.release()
	c.side.lost(b, err)
	b.flush()
	c.writers.Wait()
}

func (c *conn) readAll(b *batch) error {
	for {
		n, err := c.sock.read(c)
		if err != nil {
			return err
		}
		b.now = c.relay.now()
		c.heard.Store(int64(b.now))
		c.have += n
		err = c.consume(b)
		if err != nil {
			return err
		}
		if d, ok := c.side.(*downConn); ok {
			d.watchHeaders(b)
		}
		b.flush()
	}
}

// space implements reader.
func (c *conn) space() []byte {
	if c.in == nil {
		c.in = readBuffers.Get().(*[readBufferLen]byte)
	}
	return c.in[c.have:]
}

// idle implements reader.
func (c *conn) idle() {
	if c.have == 0 {
		c.release()
	}
}

func (c *conn) release() {
	if c.in != nil {
		readBuffers.Put(c.in)
		c.in = nil
	}
}

// consume handles the whole frames in the buffer and keeps the rest.
func (c *conn) consume(b *batch) error {
	in := c.in[:c.have]
	if !c.begun {
		n, err := c.side.begin(b, in)
		if err != nil || n == 0 {
			return err
		}
		c.begun = true
		in = in[n:]
	}
	for {
		f, n, err := parseFrame(in, minMaxFrameSize)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		c.frames++
		if err := c.handle(b, &f); err != nil {
			return err
		}
		if c.flooded.Load() {
			return calm(cutUnread, "the peer does not read what it asks for")
		}
		in = in[n:]
	}
	c.have = copy(c.in[:], in)
	return nil
}

func (c *conn) handle(b *batch, f *frame) error {
	if c.blockStream != 0 && (f.kind != frameContinuation || f.stream != c.blockStream) {
		return &connError{code: codeProtocol, why: "a header block was interrupted by another frame"}
	}
	if !c.gotSettings && (f.kind != frameSettings || f.has(flagAck)) {
		return &connError{code: codeProtocol, why: "the first frame was not SETTINGS"}
	}
	switch f.kind {
	case frameData:
		return c.handleData(b, f)
	case frameHeaders:
		return c.handleHeaders(b, f)
	case frameContinuation:
		return c.handleContinuation(b, f)
	case framePriority:
		return c.handlePriority(b, f)
	case frameRSTStream:
		return c.handleReset(b, f)
	case frameSettings:
		return c.handleSettings(b, f)
	case framePushPromise:
		return &connError{code: codeProtocol, why: "PUSH_PROMISE although push is off"}
	case framePing:
		return c.handlePing(b, f)
	case frameGoAway:
		return c.handleGoAway(b, f)
	case frameWindowUpdate:
		return c.handleWindowUpdate(b, f)
	}
	// RFC 9113, 4.1: unknown types are ignored, and not forwarded.
	return c.annoyed(b)
}

// annoyed counts a frame that moves no call.
func (c *conn) annoyed(b *batch) error { return c.annoyedBy(b, 1) }

func (c *conn) annoyedBy(b *batch, weight float64) error {
	l := &c.relay.limits
	if c.nuisance.exceeded(b.now, weight, l.ControlFrames, l.ControlFramesPerSecond) {
		return calm(cutControlFrames, "too many frames that carry no call")
	}
	return nil
}

func (c *conn) handleData(b *batch, f *frame) error {
	if f.stream == connectionStream {
		return &connError{code: codeProtocol, why: "DATA on stream 0"}
	}
	size := int64(len(f.payload))
	if c.received += size; c.received > c.granted.Load() {
		return &connError{code: codeFlowControl, why: "more DATA than the connection's window allows"}
	}
	c.takeBack(b, size)
	payload, err := f.unpad()
	if err != nil {
		return err
	}
	end := f.has(flagEndStream)
	if len(payload) == 0 && !end {
		if err := c.annoyed(b); err != nil {
			return err
		}
	} else {
		c.nuisance.earn(1)
	}
	c.mu.Lock()
	l := c.streams[f.stream]
	if l == nil {
		if d, ok := c.side.(*downConn); ok && d.past.endedByClient(f.stream) {
			c.output(b, appendRSTStream(c.pending(), f.stream, codeStreamClosed))
		}
		c.mu.Unlock()
		return c.strayFrame(b, f)
	}
	if l.finReceived {
		c.mu.Unlock()
		l.call.abort(b, l, codeStreamClosed, "DATA after END_STREAM")
		return nil
	}
	c.carried = true
	c.receivedFin(b, l, end)
	c.mu.Unlock()
	if l.received += size; l.received > l.granted.Load() {
		l.call.abort(b, l, codeFlowControl, "more DATA than the stream's window allows")
		return nil
	}
	b.owe(l, int(size)-len(payload)) // padding is taken at once
	l.call.data(b, l, payload, end)
	return nil
}

// takeBack gives the credit of the connection back on receipt: what waits is
// bounded by the windows of the streams. While too much waits in all, the
// credit stays owed.
func (c *conn) takeBack(b *batch, n int64) {
	c.unowed += n
	if c.unowed < int64(c.relay.limits.ConnectionWindow/2) {
		return
	}
	if c.relay.buffered.Load() > c.relay.limits.BufferedBytes {
		c.relay.starve(c, c.unowed)
		c.unowed = 0
		return
	}
	c.grant(b, c.unowed)
	c.unowed = 0
}

// grant lets the peer send n more bytes on the connection.
func (c *conn) grant(b *batch, n int64) {
	c.mu.Lock()
	if !c.closed {
		c.granted.Add(n)
		c.output(b, appendWindowUpdate(c.pending(), connectionStream, uint32(n)))
	}
	c.mu.Unlock()
}

// strayFrame deals with a frame for a stream that is not open: one that ended
// a moment ago is no fault, one that never was is.
func (c *conn) strayFrame(b *batch, f *frame) error {
	if c.neverOpened(f.stream) {
		return &connError{code: codeProtocol, why: fmt.Sprintf("frame type %d on stream %d, which was never opened", f.kind, f.stream)}
	}
	return c.annoyed(b)
}

// neverOpened reports whether the stream id is idle (RFC 9113, 5.1).
func (c *conn) neverOpened(stream uint32) bool {
	if stream%2 == 1 {
		if up, ok := c.side.(*upConn); ok {
			c.mu.Lock()
			defer c.mu.Unlock()
			return stream >= up.nextStream
		}
		return stream > c.lastStream
	}
	return true
}

func (c *conn) handleHeaders(b *batch, f *frame) error {
	if f.stream == connectionStream {
		return &connError{code: codeProtocol, why: "HEADERS on stream 0"}
	}
	block, err := f.unpad()
	if err != nil {
		return err
	}
	if f.has(flagPriority) {
		if len(block) < priorityFieldsLen {
			return &connError{code: codeFrameSize, why: "HEADERS too short for its priority"}
		}
		if binary.BigEndian.Uint32(block)&maxStreamID == f.stream {
			return &connError{code: codeProtocol, why: "a stream that depends on itself"}
		}
		block = block[priorityFieldsLen:]
	}
	if !f.has(flagEndHeaders) {
		c.blockStream, c.blockEnd = f.stream, f.has(flagEndStream)
		c.blocks++
		c.block = append(c.block[:0], block...)
		return nil
	}
	return c.decode(b, f.stream, block, f.has(flagEndStream))
}

func (c *conn) handleContinuation(b *batch, f *frame) error {
	if c.blockStream == 0 {
		return &connError{code: codeProtocol, why: "CONTINUATION without HEADERS"}
	}
	if len(f.payload) == 0 {
		if err := c.annoyed(b); err != nil {
			return err
		}
	}
	if len(c.block)+len(f.payload) > headerBlockFactor*c.relay.limits.HeaderList {
		return calm(cutHeaders, fmt.Sprintf("a header block of more than %d bytes", headerBlockFactor*c.relay.limits.HeaderList))
	}
	c.block = append(c.block, f.payload...)
	if !f.has(flagEndHeaders) {
		return nil
	}
	stream, block := c.blockStream, c.block
	c.blockStream, c.block = 0, nil
	return c.decode(b, stream, block, c.blockEnd)
}

func (c *conn) decode(b *batch, stream uint32, block []byte, end bool) error {
	c.fields.reset()
	if _, err := c.dec.Write(block); err != nil {
		return &connError{code: codeCompression, why: err.Error()}
	}
	if err := c.dec.Close(); err != nil {
		return &connError{code: codeCompression, why: err.Error()}
	}
	c.nuisance.earn(1)
	return c.side.headers(b, stream, &c.fields, end)
}

func (c *conn) handlePriority(b *batch, f *frame) error {
	if f.stream == connectionStream {
		return &connError{code: codeProtocol, why: "PRIORITY on stream 0"}
	}
	if len(f.payload) != priorityFieldsLen {
		return &connError{code: codeFrameSize, why: "PRIORITY of a wrong length"}
	}
	if binary.BigEndian.Uint32(f.payload)&maxStreamID == f.stream {
		return &connError{code: codeProtocol, why: "a stream that depends on itself"}
	}
	return c.annoyed(b)
}

func (c *conn) handleReset(b *batch, f *frame) error {
	if f.stream == connectionStream {
		return &connError{code: codeProtocol, why: "RST_STREAM on stream 0"}
	}
	if len(f.payload) != 4 {
		return &connError{code: codeFrameSize, why: "RST_STREAM of a wrong length"}
	}
	c.mu.Lock()
	l := c.streams[f.stream]
	if l == nil {
		c.mu.Unlock()
		return c.strayFrame(b, f)
	}
	l.finReceived = true // nothing more comes
	c.remove(b, l)
	finished := c.finished
	c.finished = 0
	c.mu.Unlock()
	l.call.peerReset(b, l, errCode(binary.BigEndian.Uint32(f.payload)))
	weight := 1.0
	if b.now-l.call.born < youngStream {
		weight = weightOfYoung
	}
	c.resets.earn(weightOfYoung * float64(finished))
	if _, down := c.side.(*downConn); down && c.resets.exceeded(b.now, weight, c.relay.limits.Resets, c.relay.limits.ResetsPerSecond) {
		return calm(cutResets, "too many streams opened and reset")
	}
	return nil // an endpoint resets only what it was asked for
}

func (c *conn) handlePing(b *batch, f *frame) error {
	if f.stream != connectionStream {
		return &connError{code: codeProtocol, why: "PING on a stream"}
	}
	if len(f.payload) != pingLen {
		return &connError{code: codeFrameSize, why: "PING of a wrong length"}
	}
	if f.has(flagAck) {
		c.side.pong(b, binary.BigEndian.Uint64(f.payload))
		return nil
	}
	if err := c.annoyed(b); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.output(b, appendPing(c.pending(), true, f.payload))
	return nil
}

func (c *conn) handleGoAway(b *batch, f *frame) error {
	if f.stream != connectionStream {
		return &connError{code: codeProtocol, why: "GOAWAY on a stream"}
	}
	if len(f.payload) < goAwayFixedLen {
		return &connError{code: codeFrameSize, why: "GOAWAY too short"}
	}
	last := binary.BigEndian.Uint32(f.payload) & maxStreamID
	code := errCode(binary.BigEndian.Uint32(f.payload[4:]))
	debug := f.payload[goAwayFixedLen:]
	if len(debug) > 256 {
		debug = debug[:256]
	}
	c.side.goAway(b, last, code, string(debug))
	return c.annoyed(b)
}

func (c *conn) handleWindowUpdate(b *batch, f *frame) error {
	if len(f.payload) != windowUpdateLen {
		return &connError{code: codeFrameSize, why: "WINDOW_UPDATE of a wrong length"}
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxStreamID)
	if f.stream == connectionStream {
		if n == 0 {
			return &connError{code: codeProtocol, why: "WINDOW_UPDATE of 0"}
		}
		c.mu.Lock()
		paid := c.payUpdate()
		if c.window += n; c.window > maxWindow {
			c.mu.Unlock()
			return &connError{code: codeFlowControl, why: "the connection's window grew past 2^31-1"}
		}
		c.resume(b)
		c.mu.Unlock()
		return c.annoyedUnless(b, paid)
	}
	c.mu.Lock()
	paid := c.payUpdate()
	l := c.streams[f.stream]
	if l == nil {
		c.mu.Unlock()
		if c.neverOpened(f.stream) {
			return c.strayFrame(b, f)
		}
		return c.annoyedUnless(b, paid) // granted before the peer knew of the end
	}
	if l.window += n; n == 0 || l.window > maxWindow {
		c.mu.Unlock()
		if n == 0 {
			l.call.abort(b, l, codeProtocol, "WINDOW_UPDATE of 0")
		} else {
			l.call.abort(b, l, codeFlowControl, "the stream's window grew past 2^31-1")
		}
		return nil
	}
	b.owe(l.source, c.pump(b, l))
	c.mu.Unlock()
	return c.annoyedUnless(b, paid)
}

// payUpdate takes one WINDOW_UPDATE off those that DATA paid for. c.mu is held.
func (c *conn) payUpdate() bool {
	if c.updates == 0 {
		return false
	}
	c.updates--
	return true
}

func (c *conn) annoyedUnless(b *batch, paid bool) error {
	if paid {
		return nil
	}
	return c.annoyed(b)
}

// condemn makes the reader end the connection.
func (c *conn) condemn(why *connError) {
	if c.condemned.CompareAndSwap(nil, why) {
		_ = c.sock.nc.SetReadDeadline(time.Unix(1, 0))
	}
}

// goodbye tells the peer why the connection ends; what is queued still goes
// out, then it closes.
func (c *conn) goodbye(b *batch, why *connError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.greeted {
		return
	}
	c.output(b, appendGoAway(c.pending(), c.lastStream, why.code, why.why))
}

// linger reads and forgets for a moment: closing a socket with unread bytes
// would take the GOAWAY away from the peer.
func (c *conn) linger() {
	_ = c.sock.nc.SetWriteDeadline(time.Now().Add(lingerTimeout))
	c.writers.Wait()
	c.sock.closeWrite()
	c.have = 0
	for left := 64; left > 0; left-- {
		if n, err := c.sock.nc.Read(c.space()); err != nil || n == 0 {
			return
		}
	}
}

// shut closes the socket. The reader goroutine notices and ends the rest.
func (c *conn) shut() {
	c.mu.Lock()
	c.closed = true
	c.out.free()
	c.out = nil
	c.mu.Unlock()
	c.sock.close()
}

// orphans takes every stream off a connection that is over.
func (c *conn) orphans(b *batch) []*leg {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	legs := make([]*leg, 0, len(c.streams))
	for _, l := range c.streams {
		legs = append(legs, l)
	}
	for _, l := range legs {
		c.remove(b, l)
	}
	return legs
}

// isEOF reports whether a read error is just the end of the connection.
func isEOF(err error) bool { return errors.Is(err, io.EOF) }
