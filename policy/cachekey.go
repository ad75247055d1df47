package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"strings"
	"sync"
)

// CacheKey says which calls of a service may share an answer. Keys compare with
// ==. Two calls have the same key only if method, request bytes and all the
// metadata that counts are the same: the hash is SHA-256, so that no caller can
// make a request whose key is that of another's.
type CacheKey struct {
	hash    [sha256.Size]byte
	request int // bytes of it; part of CachePolicy.MaxEntryBytes
}

// cacheMetadata always counts. Authorization keeps callers apart. The others
// say how the request bytes are to be read and in which form the caller can
// read the answer: one who doesn't know gzip must not get another's gzip.
var cacheMetadata = [...]string{
	"authorization", "content-type", "content-encoding", "grpc-encoding", "accept", "accept-encoding", "grpc-accept-encoding",
}

// Key returns the key of a call: its full method name, its metadata, its
// request bytes as they are on the wire, in one piece or several. get returns
// the value of the metadata of that name, in lower case; several values joined
// by commas; empty where there is none. It doesn't allocate. Keys made under
// different names in p.Metadata differ.
func (p CachePolicy) Key(method string, get func(name string) string, body ...[]byte) CacheKey {
	var k CacheKey
	w := keyWriters.Get().(*keyWriter)
	// Every part stands behind its length, and how many parts there are follows
	// from p.Metadata, so no two inputs are the same bytes in a row.
	w.string(method)
	w.string(p.Metadata)
	for _, name := range cacheMetadata {
		w.string(get(name))
	}
	for rest := p.Metadata; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, ",")
		w.string(get(name))
	}
	for _, b := range body {
		k.request += len(b)
	}
	w.length(k.request)
	w.flush()
	for _, b := range body {
		w.hash.Write(b)
	}
	k.hash = w.sum()
	keyWriters.Put(w) // not deferred: a get that panics leaves half a key in it
	return k
}

// keyWriter gathers the short parts so that the hash takes them as one.
type keyWriter struct {
	hash hash.Hash
	part []byte // what hash hasn't seen yet
}

var keyWriters = sync.Pool{New: func() any { return &keyWriter{hash: sha256.New(), part: make([]byte, 0, 512)} }}

func (w *keyWriter) length(n int) {
	if cap(w.part)-len(w.part) < 8 {
		w.flush()
	}
	w.part = binary.BigEndian.AppendUint64(w.part, uint64(n))
}

func (w *keyWriter) string(s string) {
	w.length(len(s))
	for s != "" {
		if len(w.part) == cap(w.part) {
			w.flush()
		}
		n := min(len(s), cap(w.part)-len(w.part))
		w.part, s = append(w.part, s[:n]...), s[n:]
	}
}

func (w *keyWriter) flush() {
	w.hash.Write(w.part)
	clear(w.part) // it held what a caller authorizes with
	w.part = w.part[:0]
}

func (w *keyWriter) sum() (sum [sha256.Size]byte) {
	w.part = w.hash.Sum(w.part)
	copy(sum[:], w.part)
	w.part = w.part[:0]
	w.hash.Reset()
	return sum
}
