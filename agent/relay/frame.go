package relay

import (
	"encoding/binary"
	"strconv"
)

// The frame types of RFC 9113, section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

// Frame flags.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// Settings of RFC 9113, section 6.5.2.
const (
	settingHeaderTableSize      = 0x1
	settingEnablePush           = 0x2
	settingMaxConcurrentStreams = 0x3
	settingInitialWindowSize    = 0x4
	settingMaxFrameSize         = 0x5
	settingMaxHeaderListSize    = 0x6
)

const (
	frameHeaderLen    = 9
	defaultWindow     = 65535 // RFC 9113, 6.9.2
	maxWindow         = 1<<31 - 1
	minMaxFrameSize   = 1 << 14 // what we take; we never ask for more
	maxMaxFrameSize   = 1<<24 - 1
	maxStreamID       = 1<<31 - 1
	defaultTableSize  = 4096
	clientPreface     = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	connectionStream  = 0
	unlimitedStreams  = 1<<32 - 1
	settingEntryLen   = 6
	goAwayFixedLen    = 8
	windowUpdateLen   = 4
	pingLen           = 8
	priorityFieldsLen = 5
)

// errCode is an HTTP/2 error code (RFC 9113, section 7).
type errCode uint32

const (
	codeNo                 errCode = 0x0
	codeProtocol           errCode = 0x1
	codeInternal           errCode = 0x2
	codeFlowControl        errCode = 0x3
	codeSettingsTimeout    errCode = 0x4
	codeStreamClosed       errCode = 0x5
	codeFrameSize          errCode = 0x6
	codeRefusedStream      errCode = 0x7
	codeCancel             errCode = 0x8
	codeCompression        errCode = 0x9
	codeConnect            errCode = 0xa
	codeEnhanceYourCalm    errCode = 0xb
	codeInadequateSecurity errCode = 0xc
	codeHTTP11Required     errCode = 0xd
)

var errCodeNames = [...]string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
	"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
}

func (c errCode) String() string {
	if int(c) < len(errCodeNames) {
		return errCodeNames[c]
	}
	return "error code " + strconv.FormatUint(uint64(c), 10)
}

// connError ends a connection with a GOAWAY.
type connError struct {
	code errCode
	why  string
	cut  cutOff // what the peer was cut off for; 0: a plain breach
}

func (e *connError) Error() string { return e.code.String() + ": " + e.why }

// frameHeader is the fixed part of a frame. payload points into the read
// buffer and is valid only until the next read.
type frame struct {
	kind    byte
	flags   byte
	stream  uint32
	payload []byte
}

func (f *frame) has(flag byte) bool { return f.flags&flag != 0 }

// parseFrame reads the frame at the start of b. n is its whole length; 0 means
// that b holds less than the frame. A frame longer than limit is an error as
// soon as its header is there.
func parseFrame(b []byte, limit int) (f frame, n int, err error) {
	if len(b) < frameHeaderLen {
		return f, 0, nil
	}
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if length > limit {
		return f, 0, &connError{code: codeFrameSize, why: "a frame of " + strconv.Itoa(length) + " bytes where " + strconv.Itoa(limit) + " are allowed"}
	}
	n = frameHeaderLen + length
	if len(b) < n {
		return f, 0, nil
	}
	f.kind, f.flags = b[3], b[4]
	f.stream = binary.BigEndian.Uint32(b[5:]) & maxStreamID
	f.payload = b[frameHeaderLen:n:n]
	return f, n, nil
}

// unpad returns the payload without padding (RFC 9113, 6.1).
func (f *frame) unpad() ([]byte, error) {
	p := f.payload
	if !f.has(flagPadded) {
		return p, nil
	}
	if len(p) == 0 || int(p[0]) >= len(p) {
		return nil, &connError{code: codeProtocol, why: "padding longer than its frame"}
	}
	return p[1 : len(p)-int(p[0])], nil
}

func appendFrameHeader(b []byte, length int, kind, flags byte, stream uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags,
		byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream))
}

func appendRSTStream(b []byte, stream uint32, code errCode) []byte {
	b = appendFrameHeader(b, 4, frameRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, stream, n uint32) []byte {
	b = appendFrameHeader(b, windowUpdateLen, frameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, n)
}

func appendGoAway(b []byte, last uint32, code errCode, debug string) []byte {
	b = appendFrameHeader(b, goAwayFixedLen+len(debug), frameGoAway, 0, connectionStream)
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	return append(b, debug...)
}

func appendPing(b []byte, ack bool, data []byte) []byte {
	var flags byte
	if ack {
		flags = flagAck
	}
	return append(appendFrameHeader(b, pingLen, framePing, flags, connectionStream), data...)
}

// setting is one entry of a SETTINGS frame.
type setting struct {
	id    uint16
	value uint32
}

func appendSettings(b []byte, settings ...setting) []byte {
	b = appendFrameHeader(b, settingEntryLen*len(settings), frameSettings, 0, connectionStream)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, 0, frameSettings, flagAck, connectionStream)
}

// appendHeaderBlock appends a header block as HEADERS and as many CONTINUATION
// frames as maxFrame asks for.
func appendHeaderBlock(b []byte, stream uint32, block []byte, endStream bool, maxFrame int) []byte {
	flags := byte(0)
	if endStream {
		flags = flagEndStream
	}
	kind := byte(frameHeaders)
	for {
		part := block
		if len(part) > maxFrame {
			part = part[:maxFrame]
		}
		block = block[len(part):]
		if len(block) == 0 {
			flags |= flagEndHeaders
		}
		b = append(appendFrameHeader(b, len(part), kind, flags, stream), part...)
		if len(block) == 0 {
			return b
		}
		kind, flags = frameContinuation, 0
	}
}
