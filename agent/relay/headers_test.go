package relay

import (
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
)

func fieldsOf(pairs ...string) []hpack.HeaderField {
	var fields []hpack.HeaderField
	for i := 0; i < len(pairs); i += 2 {
		fields = append(fields, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return fields
}

var grpcRequest = fieldsOf(":method", "POST", ":scheme", "http", ":path", "/a.B/C", ":authority", "a", "content-type", "application/grpc", "te", "trailers")

func TestRequestHeadersThatAreForTheAgentStopHere(t *testing.T) {
	var r request

	why := r.parse(append(grpcRequest[:6:6], fieldsOf("outrigger-service", "s", "outrigger-timeout-ms", "250", "outrigger-retry", "off",
		"outrigger-explain", "true", "outrigger-hash-key", "k", "grpc-timeout", "1S", "x-user", "ann")...), false)

	if why != "" || r.service != "s" || r.timeout != 250*time.Millisecond || !r.noRetry || !r.explain || !r.grpc || r.hashKey != "k" {
		t.Fatalf("malformed %q; read %+v", why, r)
	}
	for _, f := range r.fields {
		if f.Name == "grpc-timeout" || len(f.Name) > 10 && f.Name[:10] == "outrigger-" {
			t.Errorf("%s goes on to the upstream", f.Name)
		}
	}
	if last := r.fields[len(r.fields)-1]; last.Name != "x-user" {
		t.Errorf("the last field is %s, want x-user", last.Name)
	}
}

func TestMalformedRequests(t *testing.T) {
	for about, extra := range map[string][]hpack.HeaderField{
		"connection header":         fieldsOf("connection", "close"),
		"transfer-encoding":         fieldsOf("transfer-encoding", "chunked"),
		"te other than trailers":    fieldsOf("te", "gzip"),
		"upper case name":           fieldsOf("X-User", "ann"),
		"line break in a value":     fieldsOf("x-user", "a\r\nb: c"),
		"pseudo-header at the end":  fieldsOf(":path", "/x"),
		"unknown pseudo-header":     fieldsOf(":proto", "x"),
		"a name with a space in it": fieldsOf("x user", "ann"),
	} {
		var r request
		if why := r.parse(append(grpcRequest[:6:6], extra...), false); why == "" {
			t.Errorf("%s: taken", about)
		}
	}
	for about, list := range map[string][]hpack.HeaderField{
		"no :path":      fieldsOf(":method", "POST", ":scheme", "http"),
		"no :method":    fieldsOf(":scheme", "http", ":path", "/"),
		":method twice": fieldsOf(":method", "POST", ":method", "GET", ":scheme", "http", ":path", "/"),
		"empty":         nil,
	} {
		var r request
		if why := r.parse(list, false); why == "" {
			t.Errorf("%s: taken", about)
		}
	}
}

func TestPercentEncode(t *testing.T) {
	for in, want := range map[string]string{"": "", "plain text": "plain text", "50%": "50%25", "a\nb": "a%0Ab", "ü": "%C3%BC"} {
		if got := percentEncode(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestMessageCounter(t *testing.T) {
	whole := []byte{0, 0, 0, 0, 2, 'a', 'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'c'} // three messages, the second empty
	for size := 1; size <= len(whole); size++ {
		var m messageCounter
		for p := whole; len(p) > 0; {
			n := min(size, len(p))
			m.count(p[:n])
			p = p[n:]
		}
		if m.whole != 3 || !m.between() {
			t.Errorf("in pieces of %d: %d messages, between %v; want 3", size, m.whole, m.between())
		}
	}
	var m messageCounter
	m.count(whole[:6])
	if m.between() {
		t.Error("in mid-message, and it says between")
	}
}
