package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
)

const (
	// attackerHost is where the attacker calls from, so that a limit on its
	// address is none on the good client's.
	attackerHost = "127.0.0.2"
	// sendBuffer makes floods out of large writes.
	sendBuffer  = 64 << 10
	dialTimeout = 5 * time.Second
	// lastWords is how long a connection that can't be written to is read.
	lastWords = time.Second
)

// peer is the attacker's end of one connection. Its writes belong to the
// attack; watch, beside it, reads.
type peer struct {
	ctx    context.Context // over when the connection is, or the attack's time
	cancel context.CancelFunc
	nc     *net.TCPConn
	out    *bufio.Writer
	framer *http2.Framer // writes to out, reads from nc
	opened time.Time

	sink    bytes.Buffer
	encoder *hpack.Encoder
	next    uint32 // the next stream's id
	frames  int    // sent

	watching bool
	watched  sync.WaitGroup
	mu       sync.Mutex
	goAway   string        // what the agent's GOAWAY said; empty: none came
	saidAt   time.Duration // when, after opened
	cutAt    time.Duration // when the connection was found closed; 0: it was not
	cutHow   string
}

// dial connects from attackerHost.
func dial(ctx context.Context, target string) (*peer, error) {
	d := net.Dialer{
		Timeout:   dialTimeout,
		LocalAddr: &net.TCPAddr{IP: net.ParseIP(attackerHost)},
		// Without this, binding takes a port from every destination at once,
		// and 10,000 connections run out of them.
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
			}), err)
		},
	}
	nc, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	p := &peer{nc: nc.(*net.TCPConn), opened: time.Now(), next: 1}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.out = bufio.NewWriterSize(nc, sendBuffer)
	p.framer = http2.NewFramer(p.out, bufio.NewReader(nc))
	p.framer.AllowIllegalWrites, p.framer.AllowIllegalReads = true, true
	p.encoder = hpack.NewEncoder(&p.sink)
	// Wakes up what blocks on the socket when the time is over.
	context.AfterFunc(p.ctx, func() { _ = nc.SetDeadline(time.Now()) })
	return p, nil
}

// hello opens the connection as a good client does: preface, SETTINGS, and the
// acknowledgement of the agent's.
func (p *peer) hello(settings ...http2.Setting) error {
	if _, err := p.out.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	if err := errors.Join(p.framer.WriteSettings(settings...), p.out.Flush()); err != nil {
		return err
	}
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return err
		}
		p.hear(f)
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			return errors.Join(p.framer.WriteSettingsAck(), p.out.Flush())
		}
	}
}

// hear notes what the agent says about the connection.
func (p *peer) hear(f http2.Frame) {
	if g, ok := f.(*http2.GoAwayFrame); ok {
		p.mu.Lock()
		p.saidAt = time.Since(p.opened)
		p.goAway = fmt.Sprintf("GOAWAY %v: %s", g.ErrCode, g.DebugData())
		p.mu.Unlock()
	}
}

// watch reads until the connection ends and notes how it did.
func (p *peer) watch() {
	p.watching = true
	p.watched.Go(func() {
		for {
			f, err := p.framer.ReadFrame()
			if err != nil {
				p.ended(err)
				return
			}
			p.hear(f)
		}
	})
}

// finish waits for the connection's end after strike returned err, and closes
// it.
func (p *peer) finish(err error) {
	switch {
	case err == nil: // the agent may find out later
		<-p.ctx.Done()
	case p.watching:
		// A write found out first: what the agent said is still to be read.
		select {
		case <-p.ctx.Done():
		case <-time.After(lastWords):
			p.ended(err)
		}
	default:
		p.ended(err)
	}
	p.watched.Wait()
	p.cancel()
	_ = p.nc.SetLinger(0) // 10,000 sockets in TIME_WAIT would outlive this process
	_ = p.nc.Close()
}

// ended notes an error of the socket, unless it is only the attack's time that
// is over.
func (p *peer) ended(err error) {
	defer p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cutAt != 0 {
		return
	}
	switch {
	case p.ctx.Err() != nil, errors.Is(err, net.ErrClosed):
		return
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		p.cutHow = "closed"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		p.cutHow = "reset"
	default:
		p.cutHow = strings.TrimPrefix(err.Error(), "connection error: ")
	}
	p.cutAt = time.Since(p.opened)
}

// repeat writes a frame over and over, as fast as the agent takes them.
func (p *peer) repeat(write func() error) error {
	for range floodFrames {
		if p.ctx.Err() != nil {
			return nil
		}
		if err := write(); err != nil {
			return err
		}
		p.frames++
	}
	return p.out.Flush()
}

// drip writes bytes one at a time.
func (p *peer) drip(every time.Duration, text []byte) error {
	for i := range text {
		if !wait(p.ctx, every) {
			return nil
		}
		if _, err := p.nc.Write(text[i : i+1]); err != nil {
			return err
		}
	}
	return nil
}

// stay keeps the connection open to the end.
func (p *peer) stay() error {
	<-p.ctx.Done()
	return nil
}

// request encodes a gRPC call's header block. It is valid until the next.
func (p *peer) request(path string, more ...hpack.HeaderField) []byte {
	p.sink.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path}, {Name: ":authority", Value: authority},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = p.encoder.WriteField(f) // a bytes.Buffer takes everything
	}
	return p.sink.Bytes()
}

// call sends a request's headers and returns its stream.
func (p *peer) call(path string) (stream uint32, err error) {
	stream = p.next
	p.next += 2
	return stream, p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: p.request(path), EndHeaders: true})
}

// emptyMessage is a gRPC message of no bytes: its prefix alone.
var emptyMessage = make([]byte, 5)
