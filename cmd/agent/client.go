package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	defaultAPI  = "127.0.0.1:7601"
	apiVariable = "OUTRIGGER_API"
	// callTimeout bounds a call to the agent: it is a neighbour.
	callTimeout = 5 * time.Second
	// maxAnswer is above any answer of an agent, which bounds its lists.
	maxAnswer = 64 << 20
	// pageSize is how much of a list is asked for at a time.
	pageSize = 1000
)

// remote is a verb that talks to an agent.
type remote struct {
	address       string
	ca, cert, key string // PEM files for an API with TLS; ca empty: plaintext
	output        output
}

// flags adds what every such verb takes.
func (r *remote) flags(c *cobra.Command) *cobra.Command {
	address := os.Getenv(apiVariable)
	if address == "" {
		address = defaultAPI
	}
	c.Flags().StringVar(&r.address, "api", address, "`ADDR` of the agent's API, host:port or unix:PATH; env "+apiVariable)
	for _, f := range []struct {
		into                  *string
		name, variable, usage string
	}{
		{&r.ca, "api-ca", apiVariable + "_CA", "PEM `FILE` that the API's certificate must come from: speak TLS"},
		{&r.cert, "api-cert", apiVariable + "_CERT", "PEM `FILE` of the certificate to show"},
		{&r.key, "api-key", apiVariable + "_KEY", "PEM `FILE` of its key"},
	} {
		c.Flags().StringVar(f.into, f.name, os.Getenv(f.variable), f.usage+"; env "+f.variable)
	}
	r.output.flag(c)
	return c
}

// credentials are what the API is spoken to with.
func (r *remote) credentials() (credentials.TransportCredentials, error) {
	if r.ca == "" {
		if r.cert != "" || r.key != "" {
			return nil, errors.New("--api-cert and --api-key want --api-ca beside them")
		}
		return insecure.NewCredentials(), nil
	}
	text, err := os.ReadFile(r.ca)
	if err != nil {
		return nil, fmt.Errorf("--api-ca: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !c.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--api-ca: %s has no PEM certificate", r.ca)
	}
	if r.cert != "" || r.key != "" {
		pair, err := tls.LoadX509KeyPair(r.cert, r.key)
		if err != nil {
			return nil, fmt.Errorf("--api-cert and --api-key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(c), nil
}

// call does one short thing with the agent.
func (r *remote) call(c *cobra.Command, do func(context.Context, *grpc.ClientConn) error) error {
	return r.connect(c.Context(), func(ctx context.Context, agent *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return do(ctx, agent)
	})
}

// connect does something with the agent for as long as it takes.
func (r *remote) connect(ctx context.Context, do func(context.Context, *grpc.ClientConn) error) error {
	target := r.address
	if !strings.HasPrefix(target, "unix:") {
		if _, port, err := net.SplitHostPort(target); err != nil || port == "" {
			return usageError{fmt.Errorf("--api (or %s) is %q; want host:port or unix:PATH", apiVariable, target)}
		}
		target = "passthrough:///" + target
	}
	secure, err := r.credentials()
	if err != nil {
		return usageError{err}
	}
	agent, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(secure),
		grpc.WithNoProxy(), // grpc_proxy may well be set to the agent itself
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}, MinConnectTimeout: callTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return usageError{fmt.Errorf("--api (or %s) is %q: %w", apiVariable, r.address, err)}
	}
	defer func() { _ = agent.Close() }() // it has nothing left to say
	return r.explain(do(ctx, agent))
}

// explain says a gRPC error in the command line's words.
func (r *remote) explain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	for _, detail := range s.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "outrigger" {
			return errors.New(s.Message()) // the agent itself explains
		}
	}
	switch s.Code() {
	case codes.Unavailable:
		if s.Message() == "the agent is ending" {
			return fmt.Errorf("the agent at %s is ending", r.address)
		}
		if strings.Contains(s.Message(), "server preface") {
			return fmt.Errorf("what answers at %s is no agent's API: it does not speak HTTP/2 (the API is at %s by default)", r.address, defaultAPI)
		}
		return fmt.Errorf("no agent answers at %s: is `outrigger run` up? Name another address by --api ADDR or %s (%s)", r.address, apiVariable, cause(s.Message()))
	case codes.DeadlineExceeded:
		return fmt.Errorf("the agent at %s did not answer within %v", r.address, callTimeout)
	case codes.Unimplemented:
		return fmt.Errorf("what answers at %s is no agent, or one of another version (%s)", r.address, s.Message())
	}
	return errors.New(s.Message())
}

// cause takes the innermost reason out of a transport error's message.
func cause(message string) string {
	if i := strings.LastIndex(message, `desc = "`); i >= 0 {
		message = strings.TrimSuffix(message[i+len(`desc = "`):], `"`)
	}
	return strings.TrimPrefix(message, "transport: Error while dialing: ")
}
