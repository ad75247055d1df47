package forward

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

const (
	maxHeadBytes   = 64 << 10
	maxHeaderLines = 256
	maxChunkLine   = 256 + 16
)

// framing checks that the bytes of an HTTP/1 client mean one thing only, to
// whoever reads them: shapes that two readers may take apart differently are
// refused (RFC 9112, 11.2), although net/http would take some of them. It goes
// through request after request on one connection and keeps no bytes but the
// line under way. The zero value stands before the first request. Not safe for
// concurrent use.
type framing struct {
	state   framingState
	line    []byte
	head    int // bytes of the present head
	lines   int // header lines of it
	version byte
	connect bool
	length  int64 // of the body, or of the chunk, still to come; -1: none was named
	chunked bool
	hosts   int
	refused *violation
}

type framingState uint8

const (
	beforeRequest framingState = iota
	inHeaders
	inBody
	inChunkSize
	inChunk
	afterChunk
	inTrailers
	opaque
)

// violation is a shape that is refused.
type violation struct {
	status int
	detail string
}

func bad(format string, args ...any) *violation {
	return &violation{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// open says that what follows is not HTTP: everything passes.
func (f *framing) open() { f.state = opaque }

// check takes the next bytes and returns the first shape that is refused; from
// then on the same one again.
func (f *framing) check(p []byte) *violation {
	if f.refused == nil {
		f.refused = f.take(p)
	}
	return f.refused
}

func (f *framing) take(p []byte) *violation {
	for len(p) > 0 {
		switch f.state {
		case opaque:
			return nil
		case inBody, inChunk:
			n := min(int64(len(p)), f.length)
			p = p[n:]
			if f.length -= n; f.length == 0 {
				if f.state == inBody {
					f.state = beforeRequest
				} else {
					f.state = afterChunk
				}
			}
		default:
			n, v := f.takeLine(p)
			if v != nil {
				return v
			}
			p = p[n:]
		}
	}
	return nil
}

// takeLine adds to the line under way, and reads it once it is whole.
func (f *framing) takeLine(p []byte) (n int, v *violation) {
	limit := maxHeadBytes - f.head
	if f.state == inChunkSize || f.state == afterChunk {
		limit = maxChunkLine
	}
	for i, c := range p {
		switch {
		case c == '\n':
			line := append(f.line, p[:i]...)
			f.line = f.line[:0]
			if len(line) == 0 || line[len(line)-1] != '\r' {
				return 0, bad("a line ends with LF alone; want CR LF")
			}
			f.head += len(line) + 1
			return i + 1, f.readLine(string(line[:len(line)-1]))
		case i > 0 && p[i-1] == '\r' || i == 0 && len(f.line) > 0 && f.line[len(f.line)-1] == '\r':
			return 0, bad("a CR stands alone; want CR LF")
		case c != '\r' && c != '\t' && (c < ' ' || c == 0x7f):
			return 0, bad("a line has the control character 0x%02x", c)
		case len(f.line)+i >= limit:
			return 0, &violation{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("a head or line of more than %d bytes", limit)}
		}
	}
	f.line = append(f.line, p...)
	return len(p), nil
}

func (f *framing) readLine(line string) *violation {
	switch f.state {
	case beforeRequest:
		return f.requestLine(line)
	case inHeaders:
		return f.headerLine(line)
	case inChunkSize:
		return f.chunkLine(line)
	case afterChunk:
		if line != "" {
			return bad("a chunk is longer than its size says")
		}
		f.state = inChunkSize
	case inTrailers:
		if line == "" {
			f.state, f.head = beforeRequest, 0
			return nil
		}
		_, _, v := f.field(line)
		return v
	}
	return nil
}

// requestLine reads the line that a request begins with.
func (f *framing) requestLine(line string) *violation {
	if line == "" {
		if f.head > 2 {
			return bad("empty lines before a request")
		}
		return nil // one is forgiven: RFC 9112, 2.2
	}
	method, rest, ok := strings.Cut(line, " ")
	target, version, ok2 := strings.Cut(rest, " ")
	switch {
	case !ok || !ok2 || target == "" || strings.ContainsAny(version, " \t") || strings.ContainsRune(target, '\t'):
		return bad("the request line %.60q; want METHOD TARGET HTTP/1.1 with single spaces", line)
	case !isToken(method):
		return bad("the method %.40q is no token", method)
	case version == "HTTP/1.1", version == "HTTP/1.0":
	case strings.HasPrefix(version, "HTTP/"):
		return &violation{http.StatusHTTPVersionNotSupported, fmt.Sprintf("the version %.20q; want HTTP/1.1 or HTTP/1.0", version)}
	default:
		return bad("the version %.20q; want HTTP/1.1 or HTTP/1.0", version)
	}
	*f = framing{state: inHeaders, line: f.line, head: f.head, version: version[len(version)-1], connect: method == http.MethodConnect, length: -1}
	return nil
}

// headerLine reads a line of a request's head; an empty one ends it.
func (f *framing) headerLine(line string) *violation {
	if line == "" {
		return f.endHead()
	}
	name, value, v := f.field(line)
	if v != nil {
		return v
	}
	switch strings.ToLower(name) {
	case "host":
		f.hosts++
		if f.hosts > 1 {
			return bad("two Host headers")
		}
	case "content-length":
		if f.length >= 0 {
			return bad("two Content-Length headers")
		}
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil || strings.ContainsFunc(value, func(r rune) bool { return r < '0' || r > '9' }) {
			return bad("Content-Length %.40q; want a number", value)
		}
		f.length = int64(n)
	case "transfer-encoding":
		switch {
		case f.chunked:
			return bad("two Transfer-Encoding headers")
		case f.version == '0':
			return bad("Transfer-Encoding in HTTP/1.0")
		case !strings.EqualFold(value, "chunked"):
			return &violation{http.StatusNotImplemented, fmt.Sprintf("Transfer-Encoding %.40q; want chunked alone", value)}
		}
		f.chunked = true
	}
	if f.chunked && f.length >= 0 {
		return bad("Content-Length and Transfer-Encoding together")
	}
	return nil
}

// field takes a header or trailer line apart.
func (f *framing) field(line string) (name, value string, v *violation) {
	if f.lines++; f.lines > maxHeaderLines {
		return "", "", &violation{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("more than %d headers", maxHeaderLines)}
	}
	if line[0] == ' ' || line[0] == '\t' {
		return "", "", bad("a header that goes on in the next line (obs-fold)")
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return "", "", bad("the header line %.60q; want NAME: VALUE, with nothing between name and colon", line)
	}
	return name, strings.Trim(value, " \t"), nil
}

func (f *framing) endHead() *violation {
	f.head, f.lines = 0, 0
	switch {
	case f.version == '1' && f.hosts == 0:
		return bad("no Host header")
	case f.connect && (f.chunked || f.length > 0):
		return bad("CONNECT with a body")
	case f.connect:
		f.state = opaque
	case f.chunked:
		f.state = inChunkSize
	case f.length > 0:
		f.state = inBody
	default:
		f.state = beforeRequest
	}
	return nil
}

// chunkLine reads the line before a chunk: its size, and extensions, which
// nobody uses.
func (f *framing) chunkLine(line string) *violation {
	f.head = 0
	size, _, _ := strings.Cut(line, ";")
	size = strings.TrimRight(size, " \t")
	n, err := strconv.ParseUint(size, 16, 63)
	if err != nil || len(size) > 16 || strings.ContainsAny(size, "+-_") {
		return bad("the chunk size %.40q; want a hexadecimal number", size)
	}
	f.length = int64(n)
	f.state = inChunk
	if n == 0 {
		f.state = inTrailers
	}
	return nil
}

// isToken reports whether s is a token (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}
