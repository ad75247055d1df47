package forward

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// replay is a request's body, kept while it is sent so that another attempt can
// send it again. Past its bound it is passed on once: what the attempt under
// way has read is forgotten. Safe for concurrent use: an attempt that was given
// up may still wait for the caller's next bytes, which then are its successor's.
type replay struct {
	exchange *exchange
	source   io.Reader
	empty    bool // the request has no body
	limit    int  // how much is kept; 0: nothing

	mu        sync.Mutex
	turn      sync.Cond // reading ended, or a reader was closed
	reading   bool      // somebody waits for the source
	held      bool      // an attempt is being judged: nothing is forgotten
	committed bool      // what was read need not be kept
	over      bool      // the exchange is over
	dropped   int64     // how much was forgotten
	kept      []byte    // what follows that
	end       error     // how the source ended; io.EOF: well
}

// replayReader is the body for one attempt.
type replayReader struct {
	*replay
	read   int64 // how much of the body the attempt has; guarded by mu
	closed bool  // guarded by mu
}

var (
	errReaderClosed = errors.New("the attempt is over")
	errNotKept      = errors.New("the request's body is not kept any more")
)

// newReplay returns the body of a request. source may be nil.
func newReplay(x *exchange, source io.Reader) *replay {
	b := &replay{exchange: x, source: source}
	b.turn.L = &b.mu
	if source == nil || source == http.NoBody {
		b.empty, b.end = true, io.EOF
	}
	if x.keeps {
		b.limit = x.server.options.ReplayBytes
	}
	b.committed = b.limit == 0
	return b
}

// reader returns the body from its start on.
func (b *replay) reader() *replayReader { return &replayReader{replay: b} }

// Read implements io.Reader.
func (r *replayReader) Read(p []byte) (int, error) {
	n, err, found := r.take(p)
	if found {
		return n, err
	}
	n, err = r.source.Read(p)
	r.exchange.moved(&r.exchange.bytesUp, n)
	return r.came(p[:n], err)
}

// take reads what was kept. found is false where the caller is to read the
// source, and then to report it by came.
func (r *replayReader) take(p []byte) (n int, err error, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		switch {
		case r.closed:
			return 0, errReaderClosed, true
		case r.read < r.dropped:
			return 0, errNotKept, true
		}
		if rest := r.kept[r.read-r.dropped:]; len(rest) > 0 {
			n = copy(p, rest)
			r.read += int64(n)
			r.dropRead(r)
			return n, nil, true
		}
		if r.end != nil {
			return 0, r.end, true
		}
		if !r.reading {
			r.reading = true
			return 0, nil, false
		}
		r.turn.Wait()
	}
}

// came takes what the reader got of the source.
func (r *replayReader) came(p []byte, err error) (int, error) {
	r.mu.Lock()
	overflowed := r.keep(p)
	r.reading, r.end = false, err
	r.turn.Broadcast()
	n := 0
	if r.closed {
		err = errReaderClosed // its successor has the bytes
	} else {
		n = len(p)
		r.read += int64(n)
		r.dropRead(r)
	}
	r.mu.Unlock()
	if overflowed {
		r.exchange.overflowed()
	}
	return n, err
}

// keep appends what came and reports whether it is more than can be kept. mu is
// held.
func (b *replay) keep(p []byte) (overflowed bool) {
	if b.over {
		return false
	}
	s := b.exchange.server
	b.kept = append(b.kept, p...)
	total := s.replayed.Add(int64(len(p)))
	if b.committed || b.held || len(b.kept) <= b.limit && total <= s.options.BufferedBytes {
		return false
	}
	b.committed = true
	return true
}

// dropRead forgets what a reader has, once it is not to be sent again. mu is
// held.
func (b *replay) dropRead(r *replayReader) {
	if b.committed && !b.held && r.read == b.dropped+int64(len(b.kept)) {
		b.drop()
	}
}

// drop forgets all that is kept. mu is held.
func (b *replay) drop() {
	b.dropped += int64(len(b.kept))
	b.exchange.server.replayed.Add(-int64(len(b.kept)))
	b.kept = b.kept[:0]
}

// Close implements io.Closer. The source stays open: net/http closes the body
// of a request that it serves, and another attempt may still want it.
func (r *replayReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	r.turn.Broadcast()
	return nil
}

// hold reports whether the body can be sent again, and keeps it so until
// release.
func (b *replay) hold() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = true
	return b.dropped == 0
}

func (b *replay) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = false
}

// commit says that the body is not sent again: r has it, which may be nil.
func (b *replay) commit(r *replayReader) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.committed, b.held = true, false
	if r != nil {
		b.dropRead(r)
	}
}

// finish forgets everything: the exchange is over.
func (b *replay) finish() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	b.drop()
	b.kept = nil
}

// whole reports whether the body is here to its end and kept.
func (b *replay) whole() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Is(b.end, io.EOF) && b.dropped == 0
}

// broken reports whether the caller failed to send the body.
func (b *replay) broken() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.end != nil && !errors.Is(b.end, io.EOF)
}

// waits reports whether somebody waits for the caller's next bytes.
func (b *replay) waits() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reading
}
