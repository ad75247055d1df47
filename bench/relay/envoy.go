package main

import (
	"net"
	"strconv"

	"github.com/outrigger-rpc/outrigger/bench/envoy"
)

// startEnvoy runs Envoy with what a bare proxy needs: it writes no access log,
// makes no request id and adds no headers of its own where that can be turned
// off, and its circuit breaker is far away.
func startEnvoy(dir, address string, to target) (*process, error) {
	program := envoy.Find()
	if program == "" {
		return nil, errMissing
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	upstreamHost, upstreamPort, err := net.SplitHostPort(to.address)
	if err != nil {
		return nil, err
	}
	config, err := write(dir, "envoy.yaml", `
static_resources:
  listeners:
  - name: egress
    address: {socket_address: {address: %s, port_value: %s}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          codec_type: HTTP2
          stat_prefix: egress
          generate_request_id: false
          server_header_transformation: PASS_THROUGH
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: /}
                route: {cluster: upstream, timeout: 0s}
          http_filters:
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
  clusters:
  - name: upstream
    type: STATIC
    connect_timeout: 5s
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: upstream
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]
%s`, host, port, upstreamHost, upstreamPort, to.ifTLS(`    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: %[2]s
        common_tls_context:
          alpn_protocols: [h2]
          tls_params: {tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3}
          validation_context:
            trusted_ca: {filename: %[1]q}
            match_typed_subject_alt_names: [{san_type: DNS, matcher: {exact: %[2]s}}]
`, to.ca, serverName))
	if err != nil {
		return nil, err
	}
	return start(dir, "envoy", address, nil, program, "-c", config, "--concurrency", strconv.Itoa(*threads), "--disable-hot-restart", "--log-level", "error")
}
