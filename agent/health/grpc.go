package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	checkMethod = "/grpc.health.v1.Health/Check"
	watchMethod = "/grpc.health.v1.Health/Watch"
	// messageLimit bounds a message of the health service: an enum.
	messageLimit = 4 << 10
	prefixLen    = 5 // of a gRPC message: a flag and a length
	contentType  = "application/grpc"
)

var unsupported = result{Unsupported, "the endpoint has no gRPC health service (UNIMPLEMENTED)"}

// errNoALPN ends a connection to an endpoint that has TLS, but not HTTP/2.
var errNoALPN = errors.New("the endpoint speaks TLS, but did not agree to HTTP/2 (ALPN h2)")

// link is a connection to an endpoint's gRPC server. It is kept after a check
// where the endpoint is watched over it.
type link struct {
	conn         *http.ClientConn
	scheme, host string
	body         []byte             // the request, framed
	end          context.CancelFunc // of the watch. Set once it stands
}

// newLink connects to the endpoint's gRPC server.
func (c *Checker) newLink(ctx context.Context, j *job) (*link, error) {
	nc, err := j.connect(ctx, protocolHTTP2)
	if err != nil {
		return nil, err
	}
	if secure, ok := nc.(*tls.Conn); ok && secure.ConnectionState().NegotiatedProtocol != protocolHTTP2 {
		nc.Close()
		return nil, tlsError{errNoALPN}
	}
	conn, scheme, err := client(ctx, c.http2, nc)
	if err != nil {
		return nil, err
	}
	message, err := proto.Marshal(&healthpb.HealthCheckRequest{Service: j.settings.Service})
	if err != nil {
		conn.Close()
		return nil, err
	}
	body := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return &link{conn: conn, scheme: scheme, host: hostOf(j.address), body: append(body, message...)}, nil
}

// post calls a method of the health service.
func (l *link) post(ctx context.Context, method string) (*http.Response, error) {
	r := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: l.scheme, Host: l.host, Path: method},
		Header:        http.Header{"Content-Type": {contentType}, "Te": {"trailers"}, "User-Agent": {userAgent}},
		Body:          io.NopCloser(bytes.NewReader(l.body)),
		ContentLength: int64(len(l.body)),
	}
	return l.conn.RoundTrip(r.WithContext(ctx))
}

// askGRPC calls Check, over the connection that is kept where there is one.
func askGRPC(ctx context.Context, c *Checker, j *job) result {
	if j.link != nil {
		r, err := j.link.check(ctx, j)
		if err == nil {
			return r
		}
		j.link.end()
		if ctx.Err() != nil {
			return c.broken(j, ctx.Err())
		}
		// The connection is gone, which says nothing about the endpoint: it may
		// have ended it in good order.
	}
	l, err := c.newLink(ctx, j)
	if err != nil {
		return c.broken(j, err)
	}
	r, err := l.check(ctx, j)
	if err != nil {
		l.conn.Close()
		return c.broken(j, err)
	}
	if r.outcome != Passed || !c.watch(j.entry, l) {
		l.conn.Close()
	}
	return r
}

// check calls Check. An error is the connection's.
func (l *link) check(ctx context.Context, j *job) (result, error) {
	answer, err := l.post(ctx, checkMethod)
	if err != nil {
		return result{}, err
	}
	defer answer.Body.Close()
	if r := notGRPC(answer); r != nil {
		return *r, nil
	}
	serving, got, err := readServing(answer.Body)
	if err != nil && !errors.Is(err, io.EOF) {
		return result{}, err
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, messageLimit)); err != nil {
		return result{}, err
	}
	switch code, message := statusOf(answer); {
	case code == policy.Unimplemented:
		return unsupported, nil
	case code == policy.NotFound:
		return failed("SERVICE_UNKNOWN: the endpoint does not know the health of %q", j.settings.Service), nil
	case code != policy.OK && message != "":
		return failed("gRPC %v: %s", code, clip(message)), nil
	case code != policy.OK:
		return failed("gRPC %v", code), nil
	case !got:
		return failed("an answer without a status"), nil
	}
	return judge(serving), nil
}

// judge turns an endpoint's word about itself into a result.
func judge(s healthpb.HealthCheckResponse_ServingStatus) result {
	if s == healthpb.HealthCheckResponse_SERVING {
		return result{}
	}
	return failed("%v", s)
}

// notGRPC says what is wrong with an answer that is none of gRPC's.
func notGRPC(answer *http.Response) *result {
	var r result
	switch kind := answer.Header.Get("Content-Type"); {
	case answer.StatusCode == http.StatusNotFound: // UNIMPLEMENTED, as gRPC maps statuses
		r = unsupported
	case answer.StatusCode != http.StatusOK:
		r = failed("HTTP %d in answer to a gRPC call", answer.StatusCode)
	case !strings.HasPrefix(kind, contentType):
		r = failed("no gRPC: the answer's content-type is %q", clip(kind))
	default:
		return nil
	}
	return &r
}

// statusOf reads grpc-status from the trailers, or the headers of an answer
// that has nothing else. The body must have been read.
func statusOf(answer *http.Response) (policy.Code, string) {
	fields := answer.Trailer
	if fields.Get("Grpc-Status") == "" {
		fields = answer.Header
	}
	n, err := strconv.ParseUint(fields.Get("Grpc-Status"), 10, 8)
	if err != nil {
		return policy.Unknown, "the answer has no grpc-status"
	}
	message := fields.Get("Grpc-Message")
	if text, err := url.PathUnescape(message); err == nil {
		message = text
	}
	return policy.Code(n), message
}

// readServing reads one message of the health service. false without an error:
// the stream ended before one came.
func readServing(body io.Reader) (healthpb.HealthCheckResponse_ServingStatus, bool, error) {
	var prefix [prefixLen]byte
	if _, err := io.ReadFull(body, prefix[:]); err != nil {
		return 0, false, err
	}
	n := binary.BigEndian.Uint32(prefix[1:])
	if prefix[0] != 0 || n > messageLimit {
		return 0, false, fmt.Errorf("a message of %d bytes, compressed: %d, where the health service has one of a few", n, prefix[0])
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(body, message); err != nil {
		return 0, false, errors.Join(io.ErrUnexpectedEOF, err)
	}
	var m healthpb.HealthCheckResponse
	if err := proto.Unmarshal(message, &m); err != nil {
		return 0, false, err
	}
	return m.GetStatus(), true, nil
}
