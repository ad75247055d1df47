package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// peer is a proxy and how it is set up for the comparison: plaintext HTTP/2 on
// both sides, no access log.
type peer struct {
	name  string
	start func(dir, address, upstream string) (*process, error)
}

var peers = []peer{
	{"outrigger", startOutrigger},
	{"haproxy", startHAProxy},
	{"nginx", startNginx},
}

func write(dir, name, format string, args ...any) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600)
}

// startOutrigger runs the agent with the policies of the default
// configuration.
func startOutrigger(dir, address, upstream string) (*process, error) {
	config, err := write(dir, "outrigger.yaml", `
egress: {address: %s}
api:    {address: "127.0.0.1:0"}
admin:  {address: "127.0.0.1:0"}
services:
  - name: bench
    match: {authorities: ["%s"]}
    endpoints: {static: [{address: "%s"}]}
`, address, address, upstream)
	if err != nil {
		return nil, err
	}
	return start(dir, "outrigger", address, *agent, "run", "-c", config)
}

func startHAProxy(dir, address, upstream string) (*process, error) {
	config, err := write(dir, "haproxy.cfg", `
global
    maxconn 4000
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
    server s %s proto h2
`, address, upstream)
	if err != nil {
		return nil, err
	}
	return start(dir, "haproxy", address, "haproxy", "-db", "-f", config)
}

func startNginx(dir, address, upstream string) (*process, error) {
	config, err := write(dir, "nginx.conf", `
daemon off;
master_process off;
error_log %s/nginx.error;
pid %s/nginx.pid;
events { worker_connections 4000; }
http {
  access_log off;
  client_body_temp_path %s/nginx-body;
  proxy_temp_path %s/nginx-proxy;
  fastcgi_temp_path %s/nginx-f;
  uwsgi_temp_path %s/nginx-u;
  scgi_temp_path %s/nginx-s;
  keepalive_requests 100000000;
  client_body_buffer_size 128k;
  upstream u { server %s; keepalive 512; keepalive_requests 100000000; }
  server { listen %s http2; location / { grpc_pass grpc://u; } }
}
`, dir, dir, dir, dir, dir, dir, dir, upstream, address)
	if err != nil {
		return nil, err
	}
	return start(dir, "nginx", address, "nginx", "-c", config, "-p", dir)
}
