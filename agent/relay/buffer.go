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

// reserve makes room for n more bytes, in long steps, and lends the memory that
// was too small to others: a buffer that fills slowly leaves no garbage behind.
func (b *buffer) reserve(n int) {
	need := len(b.b) + n
	if need <= cap(b.b) {
		return
	}
	step := 2
	if cap(b.b) < initialWindow {
		step = 4
	}
	old := &buffer{b: b.b}
	b.b = append(make([]byte, 0, max(need, step*cap(b.b))), b.b...)
	old.free()
}

// free gives the buffer back; it must not be used afterwards. nil is fine.
func (b *buffer) free() {
	if b == nil || cap(b.b) > maxPooledBuffer {
		return
	}
	b.b = b.b[:0]
	buffers.Put(b)
}
