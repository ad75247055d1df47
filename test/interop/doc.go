// Package interop runs grpc-go's own interoperability client and server through
// the agent. A module of its own: what they need never reaches users.
package interop
