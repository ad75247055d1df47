// Package clients drives clients that are not Go through the agent: grpc-js and
// grpcio, unmodified, against a grpc-go server. Each case runs twice: to the
// agent's own address, and to the server's address with nothing set but
// grpc_proxy. curl does the same for plain HTTP with http_proxy. What this
// machine lacks is skipped by name.
package clients
