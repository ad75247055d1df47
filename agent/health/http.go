package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/outrigger-rpc/outrigger/policy"
)

// The protocols of ALPN (RFC 7301).
const (
	protocolHTTP2  = "h2"
	protocolHTTP11 = "http/1.1"
)

const (
	// bodyLimit is how much of an answer is read.
	bodyLimit = 64 << 10
	// headerLimit bounds the head of an answer.
	headerLimit = 64 << 10
	userAgent   = "outrigger-health"
	// noHost stands for the host of an endpoint that has none (unix:PATH).
	noHost = "localhost"
)

// opened is the key under which a context carries the connection that an
// http.Transport is to use: it is opened, and its failures are told, before
// HTTP comes in.
type opened struct{}

// newHTTP returns what speaks HTTP over connections that are opened already.
func newHTTP(protocols *http.Protocols) *http.Transport {
	take := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if nc, ok := ctx.Value(opened{}).(net.Conn); ok {
			return nc, nil
		}
		return nil, errors.New("no connection was opened")
	}
	return &http.Transport{
		DialContext: take, DialTLSContext: take, Protocols: protocols,
		DisableCompression: true, MaxResponseHeaderBytes: headerLimit, ReadBufferSize: 4 << 10, WriteBufferSize: 4 << 10,
	}
}

// client begins to speak HTTP over nc and owns it from then on.
func client(ctx context.Context, t *http.Transport, nc net.Conn) (*http.ClientConn, string, error) {
	scheme := "http"
	if _, secure := nc.(*tls.Conn); secure {
		scheme = "https"
	}
	conn, err := t.NewClientConn(context.WithValue(ctx, opened{}, nc), scheme, noHost+":80")
	if err != nil {
		nc.Close()
	}
	return conn, scheme, err
}

// hostOf is the authority of an endpoint's address.
func hostOf(address string) string {
	if strings.HasPrefix(address, "unix:") {
		return noHost
	}
	return address
}

// askHTTP checks that a GET is answered with a status that is wanted, and a
// text where one is. Redirects are not followed: theirs is a status too.
func askHTTP(ctx context.Context, c *Checker, j *job) result {
	nc, err := j.connect(ctx, protocolHTTP2, protocolHTTP11)
	if err != nil {
		return c.broken(j, err)
	}
	conn, scheme, err := client(ctx, c.http, nc)
	if err != nil {
		return c.broken(j, err)
	}
	defer conn.Close()
	path, err := url.ParseRequestURI(j.settings.Path)
	if err != nil {
		return failed("%q is no path", j.settings.Path)
	}
	path.Scheme, path.Host = scheme, hostOf(j.address)
	r := &http.Request{Method: http.MethodGet, URL: path, Host: j.settings.Host, Header: http.Header{"User-Agent": {userAgent}}, Close: true}
	answer, err := conn.RoundTrip(r.WithContext(ctx))
	if err != nil {
		return c.broken(j, err)
	}
	defer answer.Body.Close()
	if !within(j.settings.Statuses, answer.StatusCode) {
		return failed("HTTP %d, want %s", answer.StatusCode, written(j.settings.Statuses))
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, bodyLimit))
	if err != nil {
		return c.broken(j, err)
	}
	if !bytes.Contains(body, []byte(j.settings.Text)) {
		return failed("HTTP %d without %q in its first %d KiB", answer.StatusCode, j.settings.Text, bodyLimit>>10)
	}
	return result{}
}

func within(ranges []policy.StatusRange, status int) bool {
	for _, r := range ranges {
		if r.First <= status && status <= r.Last {
			return true
		}
	}
	return false
}

// written writes statuses as the configuration does: 2xx, 204, 200-299.
func written(ranges []policy.StatusRange) string {
	list := make([]string, len(ranges))
	for i, r := range ranges {
		switch {
		case r.First%100 == 0 && r.Last == r.First+99:
			list[i] = fmt.Sprintf("%dxx", r.First/100)
		case r.First == r.Last:
			list[i] = fmt.Sprint(r.First)
		default:
			list[i] = fmt.Sprintf("%d-%d", r.First, r.Last)
		}
	}
	return strings.Join(list, ", ")
}
