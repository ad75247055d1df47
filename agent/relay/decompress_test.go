package relay

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

func zipped(t testing.TB, plain []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWhatIsLongWhenItIsPlainIsNotDecompressedToItsEnd(t *testing.T) {
	bomb := zipped(t, make([]byte, 16<<20))

	plain, err := gunzip(bomb, 1000)

	if err != nil || len(plain) != 1001 || cap(plain) > 4096 {
		t.Fatalf("%d bytes in %d, %v", len(plain), cap(plain), err)
	}
}

// FuzzMessageOf: whatever a request's body is, what is kept of it is one message
// within the bound, and is the caller's own bytes where they are plain.
func FuzzMessageOf(f *testing.F) {
	const limit = 64
	f.Add([]byte{0, 0, 0, 0, 2, 'h', 'i'}, true)
	f.Add([]byte{0, 0, 0, 0, 9, 'h', 'i'}, false)
	f.Add([]byte{2, 0, 0, 0, 0}, false)
	for _, plain := range [][]byte{nil, []byte("hello"), make([]byte, 1000)} {
		z := zipped(f, plain)
		f.Add(append(binary.BigEndian.AppendUint32([]byte{1}, uint32(len(z))), z...), true)
	}
	service := policy.NewService("echo", policy.Settings{}, nil)
	r := New(Options{Limits: Limits{ReplayBytes: limit}})
	f.Cleanup(func() { r.Close() })
	f.Fuzz(func(t *testing.T, body []byte, compressed bool) {
		c := &call{relay: r}
		if compressed {
			c.req.fields = []hpack.HeaderField{{Name: encodingKey, Value: "gzip"}}
		}
		c.policy.Begin(service.Method("/a.B/C"), 1, policy.Arrival{Timeout: policy.NoTimeout})

		message, why := c.messageOf(body)

		switch {
		case why != nil && message != nil:
			t.Fatalf("both a message of %d bytes and %v", len(message), why)
		case why != nil:
			if why.Message == "" || why.Service != "echo" {
				t.Fatalf("got %+v", why)
			}
		case body[0] == 0:
			if !bytes.Equal(message, body[messagePrefixLen:]) {
				t.Fatalf("got %q of %q", message, body)
			}
		case len(message) > limit:
			t.Fatalf("%d bytes, and %d are allowed", len(message), limit)
		}
	})
}
