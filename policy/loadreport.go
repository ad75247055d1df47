package policy

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// What endpoints report their load by, in the headers or the trailers of an
// answer (ORCA). gRPC's servers send the first (gRFC A51), HTTP servers, such as
// those written for Envoy, either.
const (
	// LoadReportBinary is an encoded xds.data.orca.v3.OrcaLoadReport.
	LoadReportBinary = "endpoint-load-metrics-bin"
	// LoadReportText is one as text, JSON or base64; its first word says which.
	LoadReportText = "endpoint-load-metrics"
)

// maxLoadReport bounds a report, as it stands in a header; a longer one is none.
const maxLoadReport = 8 << 10

// LoadReportHeaders are the values of the two, as they stand in an HTTP header;
// empty: there is none.
type LoadReportHeaders struct{ Binary, Text string }

// Parse reads the report, the binary one where there are both. It returns false
// where there is none, or none that can be read.
func (h LoadReportHeaders) Parse() (r balancer.LoadReport, ok bool) {
	if h.Binary != "" {
		return parseLoadBase64(h.Binary)
	}
	return ParseLoadReportText(h.Text)
}

// WantsLoad reports whether ReportLoad has a use for what the call's endpoints
// report: the call is balanced by it.
func (c *Call) WantsLoad() bool { return c.method.rule.picker.Reports() }

// ReportLoad takes what an attempt's endpoint reported of its load, before the
// attempt is finished, settled or abandoned.
func (c *Call) ReportLoad(a *Attempt, now Instant, r balancer.LoadReport) {
	if a.Endpoint != nil {
		c.method.rule.picker.Report(a.Endpoint, now, r)
	}
}

// parseLoadBase64 reads base64, padded or not, of what ParseLoadReport reads.
func parseLoadBase64(s string) (r balancer.LoadReport, ok bool) {
	if s == "" || len(s) > maxLoadReport {
		return balancer.LoadReport{}, false
	}
	// Most reports are a few numbers: those cost no allocation.
	var text [512]byte
	var raw [384]byte
	decoded, err := base64.RawStdEncoding.AppendDecode(raw[:0], append(text[:0], strings.TrimRight(s, "=")...))
	if err != nil {
		return balancer.LoadReport{}, false
	}
	return ParseLoadReport(decoded)
}

// ParseLoadReport reads an encoded xds.data.orca.v3.OrcaLoadReport: the fields
// that weights are made from. It returns false where the encoding is broken. It
// allocates nothing.
func ParseLoadReport[T ~string | ~[]byte](b T) (r balancer.LoadReport, ok bool) {
	if len(b) > maxLoadReport {
		return balancer.LoadReport{}, false
	}
	for len(b) > 0 {
		tag, size := varint(b)
		if number := tag >> 3; size == 0 || number == 0 || number >= 1<<29 {
			return balancer.LoadReport{}, false
		}
		b = b[size:]
		size = valueSize(b, tag&7)
		if size < 0 || size > len(b) {
			return balancer.LoadReport{}, false
		}
		if tag&7 == 1 {
			set(&r, tag>>3, math.Float64frombits(fixed64(b)))
		}
		b = b[size:]
	}
	return r, true
}

// valueSize returns how many bytes a field's value takes of b, its length
// included; negative: it is broken, or of a kind that proto3 does not have.
func valueSize[T ~string | ~[]byte](b T, kind uint64) int {
	switch kind {
	case 0: // varint
		if _, size := varint(b); size > 0 {
			return size
		}
	case 1: // fixed64
		return 8
	case 2: // bytes
		if n, size := varint(b); size > 0 && n <= uint64(len(b)) {
			return size + int(n)
		}
	case 5: // fixed32
		return 4
	}
	return -1
}

// set sets a field by its number in OrcaLoadReport.
func set(r *balancer.LoadReport, field uint64, value float64) {
	switch field {
	case 1:
		r.CPUUtilization = value
	case 6:
		r.QPS = value
	case 7:
		r.EPS = value
	case 9:
		r.ApplicationUtilization = value
	}
}

// varint reads a varint and how long it is; 0: it is broken.
func varint[T ~string | ~[]byte](b T) (n uint64, size int) {
	for i := range min(len(b), 10) {
		c := b[i]
		if i == 9 && c > 1 {
			return 0, 0 // more than 64 bits
		}
		n |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, i + 1
		}
	}
	return 0, 0
}

// fixed64 reads 8 bytes.
func fixed64[T ~string | ~[]byte](b T) (n uint64) {
	for i := range 8 {
		n |= uint64(b[i]) << (8 * i)
	}
	return n
}

// ParseLoadReportText reads endpoint-load-metrics, in the forms that Envoy
// knows: "TEXT cpu_utilization=0.3, rps_fractional=10", "JSON {…}" of an
// OrcaLoadReport, "BIN …" with base64. Fields that weights are not made from
// are passed over.
func ParseLoadReportText(s string) (r balancer.LoadReport, ok bool) {
	if len(s) > maxLoadReport {
		return balancer.LoadReport{}, false
	}
	form, rest, _ := strings.Cut(s, " ")
	switch form {
	case "TEXT":
		return parseLoadPairs(rest)
	case "JSON":
		return parseLoadJSON(rest)
	case "BIN":
		return parseLoadBase64(strings.TrimSpace(rest))
	}
	return balancer.LoadReport{}, false
}

// parseLoadPairs reads names and values with "=" or, as of old, ":" between.
func parseLoadPairs(s string) (r balancer.LoadReport, ok bool) {
	for pair := range strings.SplitSeq(s, ",") {
		at := strings.IndexAny(pair, "=:")
		if at < 0 {
			return balancer.LoadReport{}, false
		}
		into := field(&r, strings.TrimSpace(pair[:at]))
		if into == nil {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(pair[at+1:]), 64)
		if err != nil {
			return balancer.LoadReport{}, false
		}
		*into = value
	}
	return r, true
}

// parseLoadJSON reads an OrcaLoadReport in proto JSON, where a name may be in
// camel case and a number a string.
func parseLoadJSON(s string) (r balancer.LoadReport, ok bool) {
	var fields map[string]any
	if err := json.Unmarshal([]byte(s), &fields); err != nil || fields == nil {
		return balancer.LoadReport{}, false
	}
	for name, value := range fields {
		into := field(&r, name)
		if into == nil {
			continue
		}
		switch v := value.(type) {
		case float64:
			*into = v
		case string:
			n, err := strconv.ParseFloat(v, 64)
			if err != nil {
				return balancer.LoadReport{}, false
			}
			*into = n
		default:
			return balancer.LoadReport{}, false
		}
	}
	return r, true
}

// field finds a field by its name in OrcaLoadReport; nil: it is of no use.
func field(r *balancer.LoadReport, name string) *float64 {
	switch name {
	case "cpu_utilization", "cpuUtilization":
		return &r.CPUUtilization
	case "application_utilization", "applicationUtilization":
		return &r.ApplicationUtilization
	case "rps_fractional", "rpsFractional":
		return &r.QPS
	case "eps":
		return &r.EPS
	}
	return nil
}
