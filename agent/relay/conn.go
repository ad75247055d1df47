package relay

import (
	"errors"
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
