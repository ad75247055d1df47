// Package identity is who the agent is in TLS: for its own listeners and for
// its connections to endpoints. Certificate, key and CA bundle come from files,
// or as a SPIFFE SVID with its trust bundles from the Workload API. They may
// change at any time, and each handshake uses what is there at its moment:
//
//	source, err := identity.Open("egress.tls", settings, logger)
//	listener = tls.NewListener(listener, source.Server("h2", "http/1.1"))
//
//	config := source.Client("h2")
//	if config.ServerName == "" {
//		config.ServerName = host
//	}
//	err = tls.Client(conn, config).HandshakeContext(ctx)
//	if err != nil {
//		reason := identity.Explain(err)
//	}
//
// What is new is used only when it is whole: a pair that is broken, mismatched
// or expired leaves the old one in use, is logged once and shown by
// Source.Problem until a good one arrives. Connections that stand keep what
// they were made with.
package identity

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Source is one identity, kept up to date. Open makes it. Its methods are safe
// for concurrent use.
type Source struct {
	field    string
	settings Settings
	allowed  allowed
	logger   *slog.Logger

	present           atomic.Pointer[material] // nil until the first SVID
	problem           atomic.Pointer[string]
	succeeded, failed atomic.Uint64

	stop    context.CancelFunc
	running sync.WaitGroup
}

// Open reads the files and watches them until Close. field is the settings'
// place in the configuration, for messages. An error names it, the file and
// what is wrong with it. The logger must not be nil; no key is ever logged.
//
// With WorkloadAPI, Open returns at once and fetches in the background, again
// and again: until the first SVID arrives every handshake fails and says so.
func Open(field string, s Settings, logger *slog.Logger) (*Source, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	ids, err := parseAllowed(s.AllowedIDs)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	source := &Source{field: field, settings: s, allowed: ids, logger: logger.With("field", field)}
	ctx, stop := context.WithCancel(context.Background())
	source.stop = stop
	if s.WorkloadAPI != "" {
		err = source.openWorkload(ctx)
	} else {
		err = source.openFiles(ctx)
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return source, nil
}

// Close ends the watch and waits for it. Configurations that were handed out
// go on with what was there last. The error is always nil.
func (s *Source) Close() error {
	s.stop()
	s.running.Wait()
	return nil
}

// Server returns the TLS of a listener that speaks these protocols (ALPN; the
// first is preferred). Each handshake sees the present certificate, CA and IDs.
// Without a certificate every handshake fails and says so. A client that names
// no protocol at all is let in.
func (s *Source) Server(protos ...string) *tls.Config {
	return &tls.Config{
		MinVersion: s.settings.minVersion(),
		NextProtos: protos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			m := s.present.Load()
			if m == nil {
				return nil, s.notReady()
			}
			return s.serverConfig(m, protos)
		},
	}
}

// Client returns the TLS of one connection to an endpoint, with the certificate
// and roots of this moment: call it for each. ServerName is set only when the
// settings name one. If "h2" is offered and "http/1.1" is not, an endpoint that
// does not choose "h2" is refused.
func (s *Source) Client(protos ...string) *tls.Config {
	config := &tls.Config{
		MinVersion: s.settings.minVersion(),
		NextProtos: protos,
		ServerName: s.settings.ServerName,
	}
	if m := s.present.Load(); m != nil {
		s.clientConfig(m, config)
	} else {
		refuseAll(config, s.notReady)
	}
	return config
}

// Problem returns why the last rotation was refused (the old certificate stays
// in use), that no SVID came yet, or that the certificate in use has expired.
// Empty: all is well.
func (s *Source) Problem() string {
	if problem := s.problem.Load(); problem != nil {
		return *problem
	}
	if m := s.present.Load(); m != nil {
		if err := m.expired(time.Now()); err != nil {
			return err.Error()
		}
	}
	return ""
}

// Rotations returns how often something new came into use, and how often it was
// refused. What Open read, or the first SVID, is no rotation.
func (s *Source) Rotations() (succeeded, failed uint64) {
	return s.succeeded.Load(), s.failed.Load()
}

// use makes m the present material and forgets the last problem.
func (s *Source) use(m *material) {
	old := s.present.Swap(m)
	s.problem.Store(nil)
	if old != nil {
		s.succeeded.Add(1)
		s.logger.Info("TLS identity rotated", m.attributes()...)
	} else {
		s.logger.Debug("TLS identity loaded", m.attributes()...)
	}
}

// refuse keeps what is in use. It counts and logs a problem once, for as long
// as it stays the same.
func (s *Source) refuse(err error) {
	if s.report(err, "TLS identity not rotated; the old one stays in use") {
		s.failed.Add(1)
	}
}

// report shows a problem and logs it, unless it is the one that is shown.
func (s *Source) report(err error, message string) (news bool) {
	problem := err.Error()
	if old := s.problem.Swap(&problem); old != nil && *old == problem {
		return false
	}
	s.logger.Warn(message, "error", problem)
	return true
}

// notReady is why there is nothing to make a handshake with.
func (s *Source) notReady() error {
	return &notReadyError{address: s.settings.WorkloadAPI, why: s.Problem()}
}
