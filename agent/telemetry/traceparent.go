package telemetry

import "go.opentelemetry.io/otel/trace"

// traceparentLength is the length of a version 00 traceparent:
// 2 hex digits, 32, 16 and 2 with dashes between.
const traceparentLength = 55

// parent is a traceparent header's content.
type parent struct {
	traceID trace.TraceID
	spanID  trace.SpanID
	flags   trace.TraceFlags
}

func (p *parent) sampled() bool { return p.flags.IsSampled() }

// parseTraceparent reads a header as W3C Trace Context (level 2, §3.2) says.
// ok is false for one that has to be treated as absent. It does not allocate.
func parseTraceparent(h string) (p parent, ok bool) {
	if len(h) < traceparentLength || h[2] != '-' || h[35] != '-' || h[52] != '-' {
		return parent{}, false
	}
	var version, flags [1]byte
	if !decodeHex(version[:], h[0:2]) || version[0] == 0xff {
		return parent{}, false
	}
	// A later version may carry more fields; what this one knows comes first.
	if len(h) > traceparentLength && (version[0] == 0 || h[traceparentLength] != '-') {
		return parent{}, false
	}
	if !decodeHex(p.traceID[:], h[3:35]) || !decodeHex(p.spanID[:], h[36:52]) || !decodeHex(flags[:], h[53:55]) {
		return parent{}, false
	}
	if !p.traceID.IsValid() || !p.spanID.IsValid() {
		return parent{}, false
	}
	// The bits that version 00 knows: sampled and random.
	p.flags = trace.TraceFlags(flags[0] & 0x03)
	return p, true
}

// decodeHex decodes lower-case hex, the only case that the header allows.
func decodeHex(dst []byte, src string) bool {
	for i := range dst {
		hi, lo := nibble(src[2*i]), nibble(src[2*i+1])
		if hi > 15 || lo > 15 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// formatTraceparent writes the header for a span.
func formatTraceparent(c trace.SpanContext) string {
	const digits = "0123456789abcdef"
	var b [traceparentLength]byte
	n := copy(b[:], "00-")
	put := func(id []byte) {
		for _, v := range id {
			b[n], b[n+1] = digits[v>>4], digits[v&15]
			n += 2
		}
	}
	traceID, spanID := c.TraceID(), c.SpanID()
	put(traceID[:])
	b[n] = '-'
	n++
	put(spanID[:])
	b[n] = '-'
	n++
	put([]byte{byte(c.TraceFlags())})
	return string(b[:])
}
