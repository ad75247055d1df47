// Package h2spec runs the conformance suite h2spec against the agent's egress
// port, with a plain HTTP/2 server behind it: RFC 7540 and 7541 frame by frame.
// No case is excluded.
package h2spec
