package relay

import (
	"encoding/binary"
	"fmt"
)

// What a connection does with each frame that it gets.

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
