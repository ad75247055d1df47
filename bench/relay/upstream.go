package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// grpcMessage returns a gRPC message of n bytes with its prefix.
func grpcMessage(n int) []byte {
	b := make([]byte, 5, 5+n)
	binary.BigEndian.PutUint32(b[1:], uint32(n))
	return append(b, bytes.Repeat([]byte{'x'}, n)...)
}

// serveUpstream answers every call with the bytes it got: as little work as an
// HTTP/2 server can do, so that the proxies share the machine with little.
// pair, if not empty, is a file of certificate and key to speak TLS with.
func serveUpstream(address, pair string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if pair != "" {
		certificate, err := tls.LoadX509KeyPair(pair, pair)
		if err != nil {
			return err
		}
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = serveConn(c) // a peer that leaves is how every round ends
		}()
	}
}

func serveConn(c net.Conn) error {
	in := bufio.NewReaderSize(c, 128<<10)
	out := bufio.NewWriterSize(c, 128<<10)
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(in, preface); err != nil {
		return err
	}
	framer := http2.NewFramer(out, in)
	framer.SetReuseFrames()
	const window = 1 << 30
	framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 10_000}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	framer.WriteWindowUpdate(0, window)
	a := &answers{framer: framer, headers: block(":status", "200", "content-type", "application/grpc"), trailers: block("grpc-status", "0"),
		window: 65535, initial: 65535, windows: make(map[uint32]int)}
	bodies := make(map[uint32][]byte)
	received := 0
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		f, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
					a.initial = int(v)
				}
				framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				framer.WritePing(true, f.Data)
			}
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				a.window += int(f.Increment)
			} else {
				a.windows[f.StreamID] += int(f.Increment)
			}
			a.send()
		case *http2.DataFrame:
			if received += len(f.Data()); received > window/2 {
				framer.WriteWindowUpdate(0, uint32(received))
				received = 0
			}
			id := f.StreamID
			bodies[id] = append(bodies[id], f.Data()...)
			if f.StreamEnded() {
				a.queue = append(a.queue, answer{stream: id, body: bodies[id]})
				delete(bodies, id)
				a.send()
			}
		}
	}
}

// answers are sent one after another, as far as the proxy's windows allow.
type answers struct {
	framer            *http2.Framer
	headers, trailers []byte
	window, initial   int
	windows           map[uint32]int // what a stream's window differs from initial
	queue             []answer
}

type answer struct {
	stream uint32
	body   []byte
	begun  bool // headers went out
}

func (a *answers) send() {
	for len(a.queue) > 0 {
		head := &a.queue[0]
		if !head.begun {
			a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: head.stream, BlockFragment: a.headers, EndHeaders: true})
			head.begun = true
		}
		for len(head.body) > 0 {
			n := min(len(head.body), 16<<10, a.window, a.initial+a.windows[head.stream])
			if n <= 0 {
				return
			}
			a.framer.WriteData(head.stream, false, head.body[:n])
			a.window -= n
			a.windows[head.stream] -= n
			head.body = head.body[n:]
		}
		a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: head.stream, BlockFragment: a.trailers, EndHeaders: true, EndStream: true})
		delete(a.windows, head.stream)
		a.queue = a.queue[1:]
	}
	a.queue = nil
}

// block encodes a header block that uses no dynamic table, so that it is the
// same for every stream.
func block(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}
