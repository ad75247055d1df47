package forward

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestShapesThatAreRefused(t *testing.T) {
	const post = "POST / HTTP/1.1\r\nHost: a\r\n"
	for _, tc := range []struct {
		about, in string
		status    int
		want      string
	}{
		{"Content-Length, then Transfer-Encoding", post + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Content-Length and Transfer-Encoding together"},
		{"the other way round", post + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400, "Content-Length and Transfer-Encoding together"},
		{"two lengths", post + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "two Content-Length headers"},
		{"two equal lengths", post + "Content-Length: 1\r\ncontent-length: 1\r\n\r\n", 400, "two Content-Length headers"},
		{"a list of lengths", post + "Content-Length: 5, 5\r\n\r\n", 400, `Content-Length "5, 5"; want a number`},
		{"a signed length", post + "Content-Length: +5\r\n\r\n", 400, `Content-Length "+5"; want a number`},
		{"a hexadecimal length", post + "Content-Length: 0x5\r\n\r\n", 400, `Content-Length "0x5"; want a number`},
		{"a length past 2^63", post + "Content-Length: 9223372036854775808\r\n\r\n", 400, `Content-Length "9223372036854775808"; want a number`},
		{"LF alone after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "a line ends with LF alone; want CR LF"},
		{"LF alone after a header", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "a line ends with LF alone; want CR LF"},
		{"LF alone after a chunk size", post + "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 400, "a line ends with LF alone; want CR LF"},
		{"CR alone", "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400, "a CR stands alone; want CR LF"},
		{"obs-fold", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400, "a header that goes on in the next line (obs-fold)"},
		{"a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, `the header line "Host : a"; want NAME: VALUE, with nothing between name and colon`},
		{"NUL", "GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400, "a line has the control character 0x00"},
		{"an encoding besides chunked", post + "Transfer-Encoding: chunked, identity\r\n\r\n", 501, `Transfer-Encoding "chunked, identity"; want chunked alone`},
		{"nearly chunked", post + "Transfer-Encoding: xchunked\r\n\r\n", 501, `Transfer-Encoding "xchunked"; want chunked alone`},
		{"chunked twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "two Transfer-Encoding headers"},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "Transfer-Encoding in HTTP/1.0"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "two Host headers"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400, "no Host header"},
		{"a tab in the request line", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, `the request line "GET\t/ HTTP/1.1"; want METHOD TARGET HTTP/1.1 with single spaces`},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, `the request line "GET  / HTTP/1.1"; want METHOD TARGET HTTP/1.1 with single spaces`},
		{"another version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, `the version "HTTP/1.2"; want HTTP/1.1 or HTTP/1.0`},
		{"no version", "GET / \r\nHost: a\r\n\r\n", 400, `the version ""; want HTTP/1.1 or HTTP/1.0`},
		{"a chunk size that is none", post + "Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400, `the chunk size "-1"; want a hexadecimal number`},
		{"a chunk size past 2^63", post + "Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n", 400, `the chunk size "8000000000000000"; want a hexadecimal number`},
		{"a chunk past its size", post + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400, "a chunk is longer than its size says"},
		{"CONNECT with a body", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n", 400, "CONNECT with a body"},
		{"a head without an end", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", maxHeadBytes), 431, "a head or line of more than 65511 bytes"},
		{"headers without an end", "GET / HTTP/1.1\r\n" + strings.Repeat("X: a\r\n", maxHeaderLines+1), 431, "more than 256 headers"},
		{"the second request of two", "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n", 400, "no Host header"},
	} {
		for about, check := range map[string]func(*framing, string) *violation{"whole": checkWhole, "by bytes": checkBytes} {
			v := check(&framing{}, tc.in)
			if v == nil || v.status != tc.status || v.detail != tc.want {
				t.Errorf("%s (%s): got %+v, want %d %s", tc.about, about, v, tc.status, tc.want)
			}
		}
	}
}

func TestShapesThatPass(t *testing.T) {
	for about, in := range map[string]string{
		"no body":             "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"HTTP/1.0":            "GET / HTTP/1.0\r\n\r\n",
		"absolute form":       "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
		"a line before":       "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"a body":              "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\r\n",
		"chunks":              "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\na\nb\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
		"pipelined":           "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\naGET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"bytes above ASCII":   "GET / HTTP/1.1\r\nHost: a\r\nX: \xe4\r\n\r\n",
		"anything, CONNECTed": "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n\x00\n\r\x16",
	} {
		if err := checkWhole(&framing{}, in); err != nil {
			t.Errorf("%s: %v", about, err)
		}
		if err := checkBytes(&framing{}, in); err != nil {
			t.Errorf("%s, by bytes: %v", about, err)
		}
	}
}

func TestAVerdictStays(t *testing.T) {
	f := &framing{}
	first := f.check([]byte("GET / HTTP/1.1\n"))

	if second := f.check([]byte("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")); first == nil || second != first {
		t.Fatalf("got %v, then %v", first, second)
	}
}

func checkWhole(f *framing, in string) *violation { return f.check([]byte(in)) }

func checkBytes(f *framing, in string) *violation {
	var err *violation
	for i := range len(in) {
		err = f.check([]byte(in[i : i+1]))
	}
	return err
}

// FuzzFraming: how the bytes are cut makes no difference, and what passes is
// read by net/http as just as many requests.
func FuzzFraming(f *testing.F) {
	f.Add("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 7)
	f.Add("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n", 40)
	f.Add("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 3)
	f.Fuzz(func(t *testing.T, in string, cut int) {
		whole, bytes, two := &framing{}, &framing{}, &framing{}
		cut = min(max(cut, 0), len(in))
		a, b := checkWhole(whole, in), checkBytes(bytes, in)
		_ = two.check([]byte(in[:cut]))
		c := two.check([]byte(in[cut:]))
		if text(a) != text(b) || text(a) != text(c) {
			t.Fatalf("whole: %v; by bytes: %v; cut at %d: %v", a, b, cut, c)
		}
		if a != nil || whole.state != beforeRequest || len(whole.line) > 0 || strings.Contains(in, "CONNECT") {
			return
		}
		requests := strings.Count(in, " HTTP/1.")
		r := bufio.NewReader(strings.NewReader(in))
		for i := 0; ; i++ {
			req, err := http.ReadRequest(r)
			if err == io.EOF {
				return
			}
			if err != nil {
				return // net/http is stricter about targets and hosts: it refuses by itself
			}
			if i > requests {
				t.Fatalf("net/http reads more than %d requests in %q", requests, in)
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				t.Fatalf("net/http can't read a body in %q: %v", in, err)
			}
		}
	})
}

func text(v *violation) string {
	if v == nil {
		return ""
	}
	return v.detail
}

func BenchmarkFramingBody(b *testing.B) { // budget: 0 allocs
	body := make([]byte, 32<<10)
	f := &framing{}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		*f = framing{state: inBody, length: int64(len(body)) + 1}
		if v := f.check(body); v != nil {
			b.Fatal(v)
		}
	}
}
