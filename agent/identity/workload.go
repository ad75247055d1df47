package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// How long a Workload API that does not answer is left alone: it restarts with
// its node, and a workload is often registered after it has started.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = 10 * time.Second
)

// openWorkload fetches SVID and bundles in the background, and whatever comes
// after them.
//
// It speaks to the API's stream itself, with go-spiffe's messages, parsers and
// verification: the library's own client brings the JWT code along, and gives
// up for good when the API once calls the request invalid.
func (s *Source) openWorkload(ctx context.Context) error {
	target, err := dialTarget(s.settings.WorkloadAPI)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the API is local, and knows its caller by the socket
		grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: firstPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxPause},
			MinConnectTimeout: 5 * time.Second,
		}))
	if err != nil {
		return fmt.Errorf("can't use the Workload API at %s: %w", s.settings.WorkloadAPI, err)
	}
	waiting := (&notReadyError{address: s.settings.WorkloadAPI}).Error()
	s.problem.Store(&waiting)
	s.running.Go(func() {
		defer conn.Close()
		s.fetch(ctx, workload.NewSpiffeWorkloadAPIClient(conn))
	})
	return nil
}

// fetch keeps a stream of SVIDs open until ctx ends.
func (s *Source) fetch(ctx context.Context, client workload.SpiffeWorkloadAPIClient) {
	pause := firstPause
	for {
		answered, err := s.stream(ctx, client)
		if ctx.Err() != nil {
			return
		}
		if answered {
			pause = firstPause
		}
		s.report(s.lost(err), "SPIFFE Workload API is away; it is asked again until it answers")
		timer := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = min(2*pause, maxPause)
	}
}

// stream takes what the API sends until the stream ends, and reports whether
// anything came.
func (s *Source) stream(ctx context.Context, client workload.SpiffeWorkloadAPIClient) (answered bool, err error) {
	// The API refuses calls without it: they may come from a browser that was
	// lured there (SPIFFE Workload Endpoint, section 5).
	ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
	stream, err := client.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return false, err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return answered, err
		}
		answered = true
		m, err := readSVID(response, time.Now())
		if err != nil {
			s.refuse(fmt.Errorf("what the Workload API at %s sent can't be used: %w", s.settings.WorkloadAPI, err))
			continue
		}
		s.use(m)
	}
}

// lost says that the API does not answer, and what that means.
func (s *Source) lost(err error) error {
	why := status.Convert(err).Message()
	if status.Code(err) == codes.PermissionDenied {
		why = "it knows no identity for this process: register it (" + why + ")"
	}
	if m := s.present.Load(); m != nil {
		return fmt.Errorf("the Workload API at %s does not answer: %s; the SVID in use is valid until %s",
			s.settings.WorkloadAPI, clip(why), date(m.certificate.Leaf.NotAfter))
	}
	return &notReadyError{why: fmt.Sprintf("no SVID from the Workload API at %s yet: %s", s.settings.WorkloadAPI, clip(why))}
}

// readSVID reads the default identity, which is the first, and all trust
// bundles.
func readSVID(response *workload.X509SVIDResponse, now time.Time) (*material, error) {
	if len(response.Svids) == 0 {
		return nil, errors.New("it holds no SVID")
	}
	svid, err := x509svid.ParseRaw(response.Svids[0].X509Svid, response.Svids[0].X509SvidKey)
	if err != nil {
		return nil, err
	}
	if err := checkValidity(svid.Certificates[0], now); err != nil {
		return nil, err
	}
	bundles := x509bundle.NewSet()
	add := func(name string, der []byte) error {
		domain, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return fmt.Errorf("trust domain %q: %w", name, err)
		}
		authorities, err := x509.ParseCertificates(der)
		if err != nil {
			return fmt.Errorf("bundle of %s: %w", domain, err)
		}
		if !bundles.Has(domain) { // of several SVIDs of a domain, the first one's counts
			bundles.Add(x509bundle.FromX509Authorities(domain, authorities))
		}
		return nil
	}
	for _, other := range response.Svids {
		if err := add(other.SpiffeId, other.Bundle); err != nil {
			return nil, err
		}
	}
	for name, der := range response.FederatedBundles {
		if err := add(name, der); err != nil {
			return nil, err
		}
	}
	certificate := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		certificate.Certificate = append(certificate.Certificate, c.Raw)
	}
	return &material{certificate: certificate, svid: svid, bundles: bundles}, nil
}
