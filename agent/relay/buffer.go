package relay

import "sync"

const (
	readBufferLen = 64 << 10
	// maxPooledBuffer is the largest output or body buffer that is kept for
	// reuse.
	maxPooledBuffer = 256 << 10
)

// readBuffers are lent to connections that have something to read: an idle
// connection holds none.
var readBuffers = sync.Pool{New: func() any { return new([readBufferLen]byte) }}

// buffer is a growing piece of memory that is used again.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 4<<10)} }}

func newBuffer() *buffer { return buffers.Get().(*buffer) }

// reserve makes room for n more bytes. It doubles: append's smaller steps would
// leave several times as much garbage behind in a buffer that fills slowly.
func (b *buffer) reserve(n int) {
	if need := len(b.b) + n; need > cap(b.b) {
		b.b = append(make([]byte, 0, max(need, 2*cap(b.b))), b.b...)
	}
}

// free gives the buffer back; it must not be used afterwards. nil is fine.
func (b *buffer) free() {
	if b == nil || cap(b.b) > maxPooledBuffer {
		return
	}
	b.b = b.b[:0]
	buffers.Put(b)
}
