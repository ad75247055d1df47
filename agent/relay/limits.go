package relay

import "time"

// Limits bound what peers can make the relay hold or do. Zero values take the
// defaults named.
type Limits struct {
	// StreamWindow is how many bytes of one stream and direction may wait in
	// the relay, and so the receive window that a stream grows to. Default
	// 256 KiB.
	StreamWindow int
	// ConnectionWindow is the receive window that each connection gets.
	// Default 16 MiB.
	ConnectionWindow int
	// BufferedBytes bounds what all streams together may have waiting before
	// connections stop getting credit. Default 64 MiB.
	BufferedBytes int64
	// ReplayBytes is how much of a call's request is kept so that it can be
	// sent again; a longer request is sent once. Default 256 KiB.
	ReplayBytes int
	// DownstreamStreams is how many calls one connection may have in flight.
	// Default 10,000.
	DownstreamStreams int
	// UpstreamConnections is how many connections one endpoint gets at most,
	// where its MAX_CONCURRENT_STREAMS asks for more than one. Default 8.
	UpstreamConnections int
	// WaitingCalls is how many calls may wait for a connection to one
	// endpoint, or for a stream on it. Default 1,024.
	WaitingCalls int
	// HeaderList is the longest header list that is taken, counted as RFC
	// 9113, 6.5.2 says. Default 64 KiB.
	HeaderList int
	// PrefaceTimeout is how long a new connection may take to say what it
	// speaks: the TLS handshake, and then preface and SETTINGS. Default 4 s.
	PrefaceTimeout time.Duration
	// HeaderTimeout is how long a client may take over a header block, or any
	// frame but DATA, that it began. Default 4 s.
	HeaderTimeout time.Duration
	// Connections is how many clients may be connected. Default 10,000.
	Connections int
	// ConnectionsPerPeer is how many of them may come from one address.
	// Default 1,024.
	ConnectionsPerPeer int
	// ControlFrames that move no call (PING, SETTINGS, PRIORITY, empty DATA
	// and the like) may come in a burst, ControlFramesPerSecond after it;
	// frames that carry something give back. Default 2,000 and 500.
	ControlFrames, ControlFramesPerSecond int
	// Resets of streams by the client may come in a burst, ResetsPerSecond
	// after it. One that comes right after its request counts for ten, unless
	// as many calls end well. Default 2,000 and 500.
	Resets, ResetsPerSecond int
	// StalledBytes is how many bytes may wait for a client that takes next to
	// nothing for StallTimeout before it is cut off. Default 4 MiB and 3 s.
	StalledBytes int
	StallTimeout time.Duration
}

func (l Limits) withDefaults() Limits {
	or := func(p *int, value int) {
		if *p == 0 {
			*p = value
		}
	}
	or(&l.StreamWindow, 256<<10)
	or(&l.ConnectionWindow, 16<<20)
	or(&l.ReplayBytes, 256<<10)
	or(&l.DownstreamStreams, 10_000)
	or(&l.UpstreamConnections, 8)
	or(&l.WaitingCalls, 1024)
	or(&l.HeaderList, 64<<10)
	if l.BufferedBytes == 0 {
		l.BufferedBytes = 64 << 20
	}
	or(&l.Connections, 10_000)
	or(&l.ConnectionsPerPeer, 1024)
	or(&l.ControlFrames, 2000)
	or(&l.ControlFramesPerSecond, 500)
	or(&l.Resets, 2000)
	or(&l.ResetsPerSecond, 500)
	or(&l.StalledBytes, 4<<20)
	for _, d := range []*time.Duration{&l.PrefaceTimeout, &l.HeaderTimeout} {
		if *d == 0 {
			*d = 4 * time.Second
		}
	}
	if l.StallTimeout == 0 {
		l.StallTimeout = 3 * time.Second
	}
	return l
}

// firstWindow is the window that a stream begins with, in bytes.
func (l *Limits) firstWindow() int { return min(initialWindow, l.StreamWindow) }

const (
	// initialWindow is what a stream may send before its bytes were seen to
	// move on; the window then grows to Limits.StreamWindow. So a stream that
	// nobody reads costs little.
	initialWindow = 64 << 10
	// weightOfHeaders is what a header list past its limit counts as, in
	// control frames.
	weightOfHeaders = 20
	// weightOfYoung is what the reset of a young stream counts as, in resets:
	// one that is younger than youngStream.
	weightOfYoung = 10
	youngStream   = 50 * time.Millisecond
	// updatesPerData is how many WINDOW_UPDATEs a DATA frame is worth, and
	// maxUpdates how many can be saved up.
	updatesPerData = 2
	maxUpdates     = 10_000
	// headerBlockFactor bounds a compressed header block at this many times
	// Limits.HeaderList: past it there is no telling what the list is, and the
	// connection ends.
	headerBlockFactor = 4
	// outputHighWater is how much output may wait on a connection before its
	// streams' DATA waits in their own queues.
	outputHighWater = 256 << 10
	// outputLimit ends a connection whose peer makes output (answers to its
	// PINGs, SETTINGS and resets) and doesn't read it.
	outputLimit = 8 << 20
	// lingerTimeout is how long a connection that ends with an error may still
	// send, so that it reads why.
	lingerTimeout = time.Second
	// drainPingTimeout is how long the last GOAWAY waits for the answer to the
	// PING sent after the first.
	drainPingTimeout = time.Second
)

// nuisance is the budget of frames that cost the relay work and move no call:
// a token bucket per connection. A well-behaved peer stays far below it.
// Frames that carry something give back: gRPC libraries measure the connection
// with a PING for nearly each DATA.
type nuisance struct {
	spent float64
	last  time.Duration
}

// earn gives back for what carried something.
func (n *nuisance) earn(weight float64) { n.spent = max(n.spent-weight, 0) }

// exceeded counts a frame of some weight at now and reports whether that was
// too much.
func (n *nuisance) exceeded(now time.Duration, weight float64, burst, perSecond int) bool {
	n.spent = max(n.spent-(now-n.last).Seconds()*float64(perSecond), 0) + weight
	n.last = now
	return n.spent > float64(burst)
}
