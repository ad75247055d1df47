package relay

import "encoding/binary"

// handleSettings applies the peer's SETTINGS to the living connection and
// acknowledges them.
func (c *conn) handleSettings(b *batch, f *frame) error {
	if f.stream != connectionStream {
		return &connError{code: codeProtocol, why: "SETTINGS on a stream"}
	}
	if f.has(flagAck) {
		if len(f.payload) != 0 {
			return &connError{code: codeFrameSize, why: "an acknowledgement of SETTINGS with content"}
		}
		return nil
	}
	if len(f.payload)%settingEntryLen != 0 {
		return &connError{code: codeFrameSize, why: "SETTINGS of a wrong length"}
	}
	first := !c.gotSettings
	c.gotSettings = true
	if !first {
		if err := c.annoyed(b); err != nil {
			return err
		}
	}
	c.mu.Lock()
	for p := f.payload; len(p) > 0; p = p[settingEntryLen:] {
		if err := c.apply(b, binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			c.mu.Unlock()
			return err
		}
	}
	c.output(b, appendSettingsAck(c.pending()))
	c.mu.Unlock()
	c.side.settled(b)
	return nil
}

// apply takes one setting over. c.mu is held.
func (c *conn) apply(b *batch, id uint16, value uint32) error {
	switch id {
	case settingHeaderTableSize:
		c.templates.epoch++ // the next field tells the peer of it
		c.enc.SetMaxDynamicTableSizeLimit(value)
		c.enc.SetMaxDynamicTableSize(min(value, defaultTableSize))
	case settingEnablePush:
		if value > 1 {
			return &connError{code: codeProtocol, why: "ENABLE_PUSH other than 0 or 1"}
		}
	case settingMaxConcurrentStreams:
		c.peerStreams = value
	case settingInitialWindowSize:
		if value > maxWindow {
			return &connError{code: codeFlowControl, why: "INITIAL_WINDOW_SIZE past 2^31-1"}
		}
		return c.resize(b, int64(value))
	case settingMaxFrameSize:
		if value < minMaxFrameSize || value > maxMaxFrameSize {
			return &connError{code: codeProtocol, why: "MAX_FRAME_SIZE out of range"}
		}
		c.peerMaxFrame = int(value)
	}
	return nil
}

// resize moves every stream's window by what INITIAL_WINDOW_SIZE changed (RFC
// 9113, 6.9.2); a window may fall below zero. c.mu is held.
func (c *conn) resize(b *batch, initial int64) error {
	delta := initial - c.peerWindow
	c.peerWindow = initial
	if delta == 0 || len(c.streams) == 0 {
		return nil
	}
	waiting := make([]*leg, 0, len(c.streams))
	for _, l := range c.streams {
		if l.window += delta; l.window > maxWindow {
			return &connError{code: codeFlowControl, why: "INITIAL_WINDOW_SIZE takes a stream's window past 2^31-1"}
		}
		if l.waiting() > 0 {
			waiting = append(waiting, l)
		}
	}
	if delta > 0 {
		for _, l := range waiting {
			b.owe(l.source, c.pump(b, l))
		}
	}
	return nil
}
