package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/outrigger-rpc/outrigger/bench/envoy"
)

// self is Outrigger's own name among the proxies, and guarded its name with
// every policy on.
const (
	self    = "outrigger"
	guarded = "outrigger+policies"
)

// proxy is a proxy and how it is set up for the comparison: plaintext HTTP/2
// from the client, plaintext or TLS to the upstream, no access log.
type proxy struct {
	name    string
	install string // how it gets onto a machine
	start   func(dir, address string, to target) (*process, error)
}

var proxies = []proxy{
	{self, "make build", startOutrigger},
	{guarded, "make build", startGuarded},
	{"haproxy", "Debian: apt-get install haproxy", startHAProxy},
	{"nginx", "Debian: apt-get install nginx", startNginx},
	{"envoy", envoy.Install, startEnvoy},
}

// proxyNames lists the proxies, Outrigger first.
func proxyNames() []string {
	names := make([]string, len(proxies))
	for i, p := range proxies {
		names[i] = p.name
	}
	return names
}

// launch starts the proxy on a free port.
func (p proxy) launch(dir string, to target) (*process, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	return p.start(dir, address, to)
}

// target is the upstream as a proxy reaches it.
type target struct {
	address string
	ca      string // file of the authority that signed its certificate; empty: plaintext
}

// ifTLS returns text only when the upstream speaks TLS.
func (t target) ifTLS(text string, args ...any) string {
	if t.ca == "" {
		return ""
	}
	return fmt.Sprintf(text, args...)
}

func write(dir, name, format string, args ...any) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600)
}

// startOutrigger runs the agent with the policies of the default
// configuration.
func startOutrigger(dir, address string, to target) (*process, error) {
	return startAgent(dir, self, address, to, "")
}

// startGuarded runs the agent with every policy on that leaves a call to be
// answered by its endpoint: all but the cache, which would answer itself, and
// faults.
func startGuarded(dir, address string, to target) (*process, error) {
	return startAgent(dir, guarded, address, to, `    policy:
      timeout: 3s
      per_try_timeout: 1s
      stream: {idle_timeout: 5m, max_duration: 1h}
      idempotent: true
      retry: {max_attempts: 3, codes: [UNAVAILABLE]}
      hedge: {delay: 500ms, delay_quantile: 0.999, max_attempts: 2}
      circuit_breaker:
        scope: ENDPOINT
        consecutive_failures: 5
        failure_rate: {threshold: 0.5, minimum_calls: 20, window: 10s}
        slow_calls: {threshold: 0.8, slower_than: 1s}
      concurrency: {adaptive: true, max_in_flight: 1000, max_queue: 1000, queue_timeout: 30s}
      rate_limit: {per_second: 1000000, per_method: true, key: {header: user-agent}}
      client_throttle: {ratio: 2}
      fallback: {code: UNAVAILABLE, message: nobody is there}
`)
}

func startAgent(dir, name, address string, to target, policies string) (*process, error) {
	config, err := write(dir, name+".yaml", `
egress: {address: %q}
api:    {address: "127.0.0.1:0"}
admin:  {address: "127.0.0.1:0"}
services:
  - name: bench
    match: {authorities: [%q]}
    endpoints: {static: [{address: %q}]}
%s%s`, address, address, to.address, to.ifTLS("    tls: {ca_file: %q, server_name: %q}\n", to.ca, serverName), policies)
	if err != nil {
		return nil, err
	}
	return start(dir, name, address, []string{"GOMAXPROCS=" + strconv.Itoa(*threads)}, *agent, "run", "-c", config)
}

func startHAProxy(dir, address string, to target) (*process, error) {
	config, err := write(dir, "haproxy.cfg", `
global
    maxconn 4000
    nbthread %d
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend f
    bind %s proto h2
    default_backend b
backend b
    server s %s proto h2%s
`, *threads, address, to.address, to.ifTLS(" ssl alpn h2 verify required ca-file %s sni str(%s) verifyhost %s", to.ca, serverName, serverName))
	if err != nil {
		return nil, err
	}
	return start(dir, "haproxy", address, nil, "haproxy", "-db", "-f", config)
}

// startNginx runs one process without a master: with one worker nginx needs
// the least CPU per call.
func startNginx(dir, address string, to target) (*process, error) {
	scheme, trust := "grpc", ""
	if to.ca != "" {
		scheme = "grpcs"
		trust = fmt.Sprintf("grpc_ssl_protocols TLSv1.2 TLSv1.3; grpc_ssl_verify on; grpc_ssl_trusted_certificate %s; grpc_ssl_server_name on; grpc_ssl_name %s;", to.ca, serverName)
	}
	config, err := write(dir, "nginx.conf", `
daemon off;
master_process off;
error_log %[1]s/nginx.error;
pid %[1]s/nginx.pid;
events { worker_connections 4000; }
http {
  access_log off;
  client_body_temp_path %[1]s/nginx-body;
  proxy_temp_path %[1]s/nginx-proxy;
  fastcgi_temp_path %[1]s/nginx-f;
  uwsgi_temp_path %[1]s/nginx-u;
  scgi_temp_path %[1]s/nginx-s;
  keepalive_requests 100000000;
  client_body_buffer_size 128k;
  upstream u { server %[2]s; keepalive 512; keepalive_requests 100000000; }
  server { listen %[3]s http2; location / { grpc_pass %[4]s://u; %[5]s } }
}
`, dir, to.address, address, scheme, trust)
	if err != nil {
		return nil, err
	}
	return start(dir, "nginx", address, nil, "nginx", "-c", config, "-p", dir)
}
