package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/bench/envoy"
)

// throughEnvoy starts Envoy before the upstream, as its documentation has
// retries of gRPC calls: what is not said is its default, so that its circuit
// breaker allows 3 retries at once.
func throughEnvoy(u *upstream) (ccs []*grpc.ClientConn, shut func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	address := l.Addr().String()
	_, port, err := net.SplitHostPort(address)
	if err = errors.Join(err, l.Close()); err != nil {
		return nil, nil, err
	}
	_, upstreamPort, err := net.SplitHostPort(u.address)
	if err != nil {
		return nil, nil, err
	}
	stop, err := startEnvoy(address, fmt.Sprintf(`
static_resources:
  listeners:
  - name: egress
    address: {socket_address: {address: 127.0.0.1, port_value: %s}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          codec_type: HTTP2
          stat_prefix: egress
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: upstream, timeout: 10s, retry_policy: {retry_on: unavailable, num_retries: 2}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: upstream
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: upstream
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]}]
`, port, upstreamPort))
	if err != nil {
		return nil, nil, err
	}
	ccs, leave, err := connect(address, service, 1)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return ccs, func() error { return errors.Join(leave(), stop()) }, nil
}

// startEnvoy returns when Envoy listens on the address.
func startEnvoy(address, config string) (stop func() error, err error) {
	dir, err := os.MkdirTemp("", "bench-policies")
	if err != nil {
		return nil, err
	}
	path, log := filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "envoy.log")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.Command(envoy.Find(), "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "--log-path", log)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return os.RemoveAll(dir)
	}
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			return stop, c.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	text, _ := os.ReadFile(log)
	return nil, errors.Join(fmt.Errorf("envoy does not listen on %s after 5 s:\n%s", address, text), stop())
}
