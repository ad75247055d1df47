package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// reasonHeader of an answer says that the agent itself refused, and why.
const reasonHeader = "Outrigger-Reason"

const idleEgress = 30 * time.Second

// egressTransport sends the requests of http tasks by the agent's own egress, as an
// app with http_proxy does: http by its policies, https by CONNECT. It implements
// http.RoundTripper.
type egressTransport struct{ http *http.Transport }

func (a *Agent) newEgressTransport() *egressTransport {
	return &egressTransport{&http.Transport{
		Proxy:                  http.ProxyURL(&url.URL{Scheme: "http", Host: "outrigger"}),
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return a.loop(ctx) },
		OnProxyConnectResponse: refusedTunnel,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        idleEgress,
		DisableCompression:     true, // a result is kept as it came
		ForceAttemptHTTP2:      true,
	}}
}

// tunnelRefusal is a CONNECT that the agent refused.
type tunnelRefusal struct{ answer *http.Response }

func (t *tunnelRefusal) Error() string {
	return fmt.Sprintf("the agent refused the connection: %s", t.answer.Header.Get(reasonHeader))
}

func refusedTunnel(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	if answer.StatusCode == http.StatusOK || answer.Header.Get(reasonHeader) == "" {
		return nil
	}
	why, err := io.ReadAll(io.LimitReader(answer.Body, maxTunnelRefusal))
	if err != nil {
		return err
	}
	return &tunnelRefusal{&http.Response{
		StatusCode: answer.StatusCode, Status: answer.Status, Proto: answer.Proto, ProtoMajor: answer.ProtoMajor, ProtoMinor: answer.ProtoMinor,
		Header: answer.Header.Clone(), Body: io.NopCloser(bytes.NewReader(why)),
	}}
}

// maxTunnelRefusal bounds what is read of a refusal, in bytes.
const maxTunnelRefusal = 16 << 10

// RoundTrip implements http.RoundTripper. A refused CONNECT is an answer, as every
// other refusal is; what comes through a tunnel is no refusal of the agent's.
func (t *egressTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.http.RoundTrip(r)
	var refused *tunnelRefusal
	if errors.As(err, &refused) {
		refused.answer.Request = r
		return refused.answer, nil
	}
	if err == nil && r.URL.Scheme == "https" {
		answer.Header.Del(reasonHeader)
	}
	return answer, err
}

func (t *egressTransport) close() { t.http.CloseIdleConnections() }
