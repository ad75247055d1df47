package relay

import (
	"slices"
	"testing"

	"golang.org/x/net/http2/hpack"
	"pgregory.net/rapid"
)

// encoding is a connection's encoder and the decoder of its peer.
type encoding struct {
	conn
	peer *hpack.Decoder
	got  []hpack.HeaderField
}

func newEncoding() *encoding {
	e := &encoding{}
	e.enc = hpack.NewEncoder(&e.encoded)
	e.peer = hpack.NewDecoder(defaultTableSize, func(f hpack.HeaderField) { e.got = append(e.got, f) })
	return e
}

// send encodes a list and has the peer decode it.
func (e *encoding) send(t interface{ Fatal(...any) }, fields []hpack.HeaderField) []hpack.HeaderField {
	e.encoded.b, e.got = e.encoded.b[:0], nil
	e.encodeAll(fields)
	if _, err := e.peer.Write(e.encoded.b); err != nil {
		t.Fatal(err)
	}
	if err := e.peer.Close(); err != nil {
		t.Fatal(err)
	}
	return e.got
}

func TestAListThatComesAgainIsNotEncodedAgain(t *testing.T) {
	e := newEncoding()
	list := []hpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, {Name: "x-a", Value: "1"}}
	for i, known := range []bool{false, false, true, true} { // the first adds to the table, the second is all index
		if got := e.templates.find(list) != nil; got != known {
			t.Fatalf("before encoding it for the %d. time: known %v", i+1, got)
		}
		if got := e.send(t, list); !slices.Equal(got, list) {
			t.Fatalf("the peer got %v", got)
		}
	}

	e.send(t, []hpack.HeaderField{{Name: "x-new", Value: "shifts every index"}})

	if e.templates.find(list) != nil {
		t.Fatal("still known after the table changed")
	}
	if got := e.send(t, list); !slices.Equal(got, list) {
		t.Fatalf("the peer got %v", got)
	}
}

// TestThePeerDecodesWhatWasSent: whatever lists come in whatever order, with
// the table resized between them, the peer reads the same.
func TestThePeerDecodesWhatWasSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := newEncoding()
		field := rapid.Custom(func(t *rapid.T) hpack.HeaderField {
			return hpack.HeaderField{Name: rapid.SampledFrom([]string{":status", "content-type", "x-a", "x-b", "x-c"}).Draw(t, "name"),
				Value: rapid.SampledFrom([]string{"200", "1", "2", "application/grpc", string(make([]byte, 1500)), string(make([]byte, 900))}).Draw(t, "value"), Sensitive: rapid.IntRange(0, 9).Draw(t, "sensitive") == 0}
		})
		lists := rapid.SliceOfN(rapid.SliceOfN(field, 1, 4), 1, 5).Draw(t, "lists")
		for range rapid.IntRange(1, 40).Draw(t, "blocks") {
			if rapid.IntRange(0, 9).Draw(t, "resize") == 0 {
				size := rapid.SampledFrom([]uint32{0, 100, 2000, defaultTableSize}).Draw(t, "size")
				if err := e.apply(nil, settingHeaderTableSize, size); err != nil {
					t.Fatal(err)
				}
			}
			list := rapid.SampledFrom(lists).Draw(t, "list")
			if got := e.send(t, list); !slices.EqualFunc(got, list, func(a, b hpack.HeaderField) bool { return a.Name == b.Name && a.Value == b.Value }) {
				t.Fatalf("the peer got %v, want %v", got, list)
			}
		}
	})
}

func BenchmarkHeaderBlock(b *testing.B) { // budget: 150 ns, 0 allocs
	list := []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/helloworld.Greeter/SayHello"}, {Name: ":authority", Value: "greeter.default.svc:50051"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: "grpc-go/1.85.0"}, {Name: "te", Value: "trailers"}, {Name: "grpc-accept-encoding", Value: "gzip"}}
	for name, encode := range map[string]func(e *encoding){
		"template": func(e *encoding) { e.encodeAll(list) },
		"encoder": func(e *encoding) {
			for i := range list {
				e.encode(&list[i])
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			e := newEncoding()
			b.ReportAllocs()
			for b.Loop() {
				e.encoded.b = e.encoded.b[:0]
				encode(e)
			}
		})
	}
}
