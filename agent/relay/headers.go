package relay

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// fieldList collects a decoded header block. Past the limit it counts and
// keeps nothing more.
type fieldList struct {
	fields []hpack.HeaderField
	size   int
	limit  int
}

func (l *fieldList) reset() {
	l.fields = l.fields[:0]
	l.size = 0
}

func (l *fieldList) add(f hpack.HeaderField) {
	l.size += int(f.Size())
	if l.size <= l.limit {
		l.fields = append(l.fields, f)
	}
}

func (l *fieldList) tooBig() bool { return l.size > l.limit }

// request is a request's header list, read once: what the relay decides on,
// and the fields that go on to the upstream.
type request struct {
	method, scheme, authority, path string
	service                         string // outrigger-service
	traceparent, tracestate         string
	timeout                         time.Duration // the smallest the caller named; negative: none
	grpc                            bool
	explain                         bool
	noRetry                         bool   // outrigger-retry: off
	hashKey                         string // outrigger-hash-key
	deferred                        bool   // outrigger-defer: true
	idempotencyKey                  string // outrigger-idempotency-key
	fromTask                        bool   // outrigger-task-id: the task executor makes the call
	criticality                     policy.Criticality
	previous                        int // grpc-previous-rpc-attempts of the caller's own library
	fields                          []hpack.HeaderField
	inline                          [16]hpack.HeaderField
}

// parse reads the list. The returned text says why the request is malformed
// (RFC 9113, 8.1.1 and 8.2); empty: it is not. tracing takes the trace context
// out of the forwarded fields, since the agent writes its own.
func (r *request) parse(list []hpack.HeaderField, tracing bool) (malformed string) {
	r.timeout = -1
	r.fields = r.inline[:0]
	regular := false
	for i := range list {
		f := &list[i]
		if f.Name == "" {
			return "an empty header name"
		}
		if f.Name[0] == ':' {
			if regular {
				return "a pseudo-header after a header"
			}
			if why := r.pseudo(f); why != "" {
				return why
			}
			continue
		}
		if !regular {
			regular = true
			r.appendPseudo()
		}
		why, keep := r.field(f, tracing)
		if why != "" {
			return why
		}
		if keep {
			r.fields = append(r.fields, *f)
		}
	}
	if !regular {
		r.appendPseudo()
	}
	switch {
	case r.method == "CONNECT":
		return "" // refused with an explanation, not as malformed
	case r.method == "":
		return "no :method"
	case r.scheme == "":
		return "no :scheme"
	case r.path == "":
		return "no :path"
	}
	return ""
}

func (r *request) pseudo(f *hpack.HeaderField) (malformed string) {
	var into *string
	switch f.Name {
	case ":method":
		into = &r.method
	case ":scheme":
		into = &r.scheme
	case ":authority":
		into = &r.authority
	case ":path":
		into = &r.path
	default:
		return "the pseudo-header " + f.Name
	}
	if *into != "" {
		return f.Name + " twice"
	}
	*into = f.Value
	return ""
}

func (r *request) appendPseudo() {
	r.fields = append(r.fields,
		hpack.HeaderField{Name: ":method", Value: r.method},
		hpack.HeaderField{Name: ":scheme", Value: r.scheme},
		hpack.HeaderField{Name: ":path", Value: r.path})
	if r.authority != "" {
		r.fields = append(r.fields, hpack.HeaderField{Name: ":authority", Value: r.authority})
	}
}

// field reads one header. keep says that the upstream gets it.
func (r *request) field(f *hpack.HeaderField, tracing bool) (malformed string, keep bool) {
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return "the connection header " + f.Name, false
	case "te":
		if f.Value != "trailers" {
			return "te other than trailers", false
		}
	case "host":
		if r.authority == "" {
			r.authority = f.Value
			return "", true
		}
	case "content-type":
		r.grpc = isGRPC(f.Value)
	case "grpc-timeout":
		if d, ok := parseGRPCTimeout(f.Value); ok {
			r.narrow(d)
			return "", false
		}
		return "", true // not ours to judge: the server says what is wrong
	case previousAttempts:
		if n, err := strconv.ParseUint(f.Value, 10, 16); err == nil {
			r.previous = int(n)
		}
	case "traceparent":
		r.traceparent = f.Value
		return "", !tracing
	case "tracestate":
		r.tracestate = f.Value
	default:
		if strings.HasPrefix(f.Name, metadataPrefix) {
			return r.metadata(f)
		}
		if why := malformedField(f); why != "" {
			return why, false
		}
	}
	return "", true
}

// metadataPrefix is that of the call metadata that is for the agent.
const metadataPrefix = "outrigger-"

func (r *request) metadata(f *hpack.HeaderField) (malformed string, keep bool) {
	switch f.Name {
	case "outrigger-service":
		r.service = f.Value
	case "outrigger-timeout-ms":
		if d, ok := parseMillis(f.Value); ok {
			r.narrow(d)
		}
	case "outrigger-retry":
		r.noRetry = f.Value == "off"
	case "outrigger-explain":
		r.explain = f.Value == "true"
	case "outrigger-defer":
		r.deferred = f.Value == "true"
	case "outrigger-idempotency-key":
		r.idempotencyKey = f.Value
		return malformedField(f), false
	case taskIDKey:
		r.fromTask = true
		return malformedField(f), true
	case "outrigger-criticality":
		if level, ok := policy.ParseCriticality(f.Value); ok {
			r.criticality = level
		}
	case "outrigger-hash-key":
		r.hashKey = f.Value
	default:
		return malformedField(f), true
	}
	return "", false
}

// Get implements policy.Metadata. Cookies that came in pieces are one (RFC 9113,
// 8.2.3).
func (r *request) Get(name string) (value string) {
	for i := range r.fields {
		switch f := &r.fields[i]; {
		case f.Name != name:
		case name != "cookie":
			return f.Value
		case value == "":
			value = f.Value
		default:
			value += "; " + f.Value
		}
	}
	return value
}

func (r *request) narrow(d time.Duration) {
	if r.timeout < 0 || d < r.timeout {
		r.timeout = d
	}
}

// malformedField says what is wrong with a header's name or value (RFC 9113,
// 8.2.1); empty: nothing.
func malformedField(f *hpack.HeaderField) string {
	for i := range len(f.Name) {
		if c := f.Name[i]; c <= ' ' || c >= 0x7f || 'A' <= c && c <= 'Z' || c == ':' {
			return "a header name with an upper case or forbidden character"
		}
	}
	for i := range len(f.Value) {
		if c := f.Value[i]; c == 0 || c == '\n' || c == '\r' {
			return "a header value with a line break or NUL"
		}
	}
	return ""
}

// idempotentMethod reports whether a plain HTTP request may be processed twice
// (RFC 9110, 9.2.2).
func idempotentMethod(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(contentType, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// connectionHeader reports whether a response header holds for one hop only.
func connectionHeader(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}

// response is what the relay reads from a response's headers or trailers.
type response struct {
	status  int // HTTP status; 0: none, so these are trailers
	grpc    bool
	code    policy.Code
	coded   bool // grpc-status stood there
	message string
	// What the upstream says of trying again, as it stands there.
	pushbackMillis, retryAfter, details string
	load                                policy.LoadReportHeaders
}

// pushback returns what the upstream says of trying again. Read only of
// answers that failed.
func (r *response) pushback() time.Duration {
	if d := policy.ParsePushback(r.pushbackMillis); d != 0 {
		return d
	}
	if d := policy.ParseRetryAfter(r.retryAfter); d != 0 {
		return d
	}
	return policy.ParseRetryInfo(r.details)
}

// parse reads a header block and takes connection headers out of the list.
func (r *response) parse(list *fieldList) (malformed string) {
	*r = response{}
	kept := list.fields[:0]
	for i := range list.fields {
		f := &list.fields[i]
		switch {
		case f.Name == ":status":
			n, ok := parseStatus(f.Value)
			if !ok || i != 0 {
				return "a malformed :status"
			}
			r.status = n
		case f.Name == "" || f.Name[0] == ':':
			return "the pseudo-header " + f.Name
		case f.Name == "content-type":
			r.grpc = isGRPC(f.Value)
		case f.Name == "grpc-status":
			r.code, r.coded = parseCode(f.Value), true
		case f.Name == "grpc-message":
			r.message = f.Value
		case f.Name == "grpc-retry-pushback-ms":
			r.pushbackMillis = f.Value
		case f.Name == "retry-after":
			r.retryAfter = f.Value
		case f.Name == "grpc-status-details-bin":
			r.details = f.Value
		case f.Name == policy.LoadReportBinary, f.Name == policy.LoadReportText:
			if why := malformedField(f); why != "" {
				return why
			}
			if f.Name == policy.LoadReportBinary {
				r.load.Binary = f.Value
			} else {
				r.load.Text = f.Value
			}
			f.Sensitive = true // it differs by call: encoded so that it pushes nothing out of the app's table
		case connectionHeader(f.Name):
			continue
		default:
			if why := malformedField(f); why != "" {
				return why
			}
		}
		kept = append(kept, *f)
	}
	list.fields = kept
	return ""
}

func parseStatus(s string) (int, bool) {
	if len(s) != 3 || s[0] < '1' || s[0] > '9' {
		return 0, false
	}
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// parseCode reads grpc-status; what is no code counts as UNKNOWN, as the gRPC
// protocol says.
func parseCode(s string) policy.Code {
	n := 0
	if s == "" || len(s) > 2 {
		return policy.Unknown
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return policy.Unknown
		}
		n = n*10 + int(s[i]-'0')
	}
	if n >= int(policy.NumCodes) {
		return policy.Unknown
	}
	return policy.Code(n)
}

// codeFromHTTP maps the status of an answer without grpc-status (gRPC: HTTP to
// gRPC Status Code Mapping).
func codeFromHTTP(status int) policy.Code {
	switch status {
	case 400:
		return policy.Internal
	case 401:
		return policy.Unauthenticated
	case 403:
		return policy.PermissionDenied
	case 404:
		return policy.Unimplemented
	case 429, 502, 503, 504:
		return policy.Unavailable
	}
	return policy.Unknown
}
