package identity

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// workloadAPI is a SPIFFE Workload API on a unix socket.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	path string

	mu       sync.Mutex
	response *workload.X509SVIDResponse // nil: no identity is registered
	changed  chan struct{}              // closed when response changes
}

// socketPath is short: a socket's path has at most about 100 bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "spiffe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

func newWorkloadAPI(t *testing.T) *workloadAPI {
	t.Helper()
	api := &workloadAPI{path: socketPath(t), changed: make(chan struct{})}
	api.serve(t)
	return api
}

// serve returns what stops it; the test's end does too.
func (api *workloadAPI) serve(t *testing.T) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", api.path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, api)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	stop = func() { server.Stop(); <-done }
	t.Cleanup(stop)
	return stop
}

func (api *workloadAPI) give(response *workload.X509SVIDResponse) {
	api.mu.Lock()
	defer api.mu.Unlock()
	api.response = response
	close(api.changed)
	api.changed = make(chan struct{})
}

func (api *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	header, _ := metadata.FromIncomingContext(stream.Context())
	if got := header.Get("workload.spiffe.io"); len(got) != 1 || got[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing")
	}
	for {
		api.mu.Lock()
		response, changed := api.response, api.changed
		api.mu.Unlock()
		if response == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := stream.Send(response); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// domain is a trust domain with its CA.
type domain struct {
	name string // "spiffe://example.org"
	*authority
}

func newDomain(t *testing.T, name string) domain {
	t.Helper()
	return domain{name: name, authority: newAuthority(t, name, name)}
}

// svid is a response with one SVID for the path and the domain's bundle;
// others are federated.
func (d domain) svid(t *testing.T, path string, others ...domain) (*workload.X509SVIDResponse, pair) {
	t.Helper()
	p := d.issue(t, leaf{uri: d.name + path})
	response := &workload.X509SVIDResponse{
		Svids:            []*workload.X509SVID{{SpiffeId: d.name + path, X509Svid: p.certDER, X509SvidKey: p.keyDER, Bundle: d.cert.Raw}},
		FederatedBundles: map[string][]byte{},
	}
	for _, other := range others {
		response.FederatedBundles[other.name] = other.cert.Raw
	}
	return response, p
}

// spiffe opens a source that an API of its own gives this SVID, once it came.
func spiffe(t *testing.T, response *workload.X509SVIDResponse, ids ...string) *Source {
	t.Helper()
	api := newWorkloadAPI(t)
	api.give(response)
	source := open(t, api.settings(ids...))
	eventually(t, "the SVID", func() bool { return source.Problem() == "" })
	return source
}

func (api *workloadAPI) settings(ids ...string) Settings {
	return Settings{WorkloadAPI: "unix://" + api.path, AllowedIDs: ids}
}

func TestUntilTheFirstSVIDHandshakesFailAndSaySo(t *testing.T) {
	// Given a workload that is not registered yet.
	d := newDomain(t, "spiffe://example.org")
	api := newWorkloadAPI(t)
	source, log := openLogged(t, api.settings("spiffe://example.org"))
	eventually(t, "the API's answer", func() bool { return strings.Contains(source.Problem(), "register it (no identity issued)") })
	response, _ := d.svid(t, "/peer")
	peer := spiffe(t, response, "spiffe://example.org")

	want := "no SVID from the Workload API at unix://" + api.path + " yet"
	server := source.Server("h2")
	o := shake(t, server, peer.Client("h2"))
	says(t, o.server, want, "no identity issued")
	says(t, o.client, "the peer failed by itself")
	says(t, shake(t, peer.Server("h2"), source.Client("h2")).client, want)

	// When it is registered, the same configuration works.
	response, _ = d.svid(t, "/late")
	api.give(response)
	eventually(t, "the first SVID", func() bool { return shake(t, server, peer.Client("h2")).ok() })
	if o := shake(t, peer.Server("h2"), source.Client("h2")); !o.ok() {
		t.Errorf("%v, %v", o.server, o.client)
	}
	if good, bad := source.Rotations(); good != 0 || bad != 0 {
		t.Errorf("the first is no rotation: %d, %d", good, bad)
	}
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, log)
	}
}

func TestAWorkloadAPIThatStartsLaterIsFound(t *testing.T) {
	d := newDomain(t, "spiffe://example.org")
	api := &workloadAPI{path: socketPath(t), changed: make(chan struct{})}
	source := open(t, api.settings("spiffe://example.org"))
	eventually(t, "the failure", func() bool { return strings.Contains(source.Problem(), "no such file") })

	response, _ := d.svid(t, "/late")
	api.give(response)
	stop := api.serve(t)
	eventually(t, "the SVID", func() bool { return source.Problem() == "" })

	// When it goes away again, the SVID stays in use.
	stop()
	eventually(t, "the loss", func() bool { return strings.Contains(source.Problem(), "the SVID in use is valid until") })
	if o := shake(t, source.Server("h2"), source.Client("h2")); !o.ok() {
		t.Errorf("%v, %v", o.server, o.client)
	}
	os.Remove(api.path)
	api.serve(t)
	eventually(t, "its return", func() bool { return source.Problem() == "" })
}

func TestAnSVIDAndItsBundleAreRotated(t *testing.T) {
	old, next := newDomain(t, "spiffe://example.org"), newDomain(t, "spiffe://example.org")
	api := newWorkloadAPI(t)
	response, _ := old.svid(t, "/a")
	api.give(response)
	source := open(t, api.settings("spiffe://example.org"))
	server := source.Server("h2")
	eventually(t, "the SVID", func() bool { return source.Problem() == "" })
	response, _ = old.svid(t, "/b")
	outdated := spiffe(t, response, "spiffe://example.org")
	if o := shake(t, server, outdated.Client("h2")); !o.ok() {
		t.Fatalf("%v, %v", o.server, o.client)
	}

	response, p := next.svid(t, "/a")
	api.give(response)

	eventually(t, "the new SVID", func() bool {
		o := shake(t, server, source.Client("h2"))
		return o.ok() && o.seen.PeerCertificates[0].Equal(p.leaf)
	})
	says(t, shake(t, server, outdated.Client("h2")).client, "not trusted")
	if good, bad := source.Rotations(); good != 1 || bad != 0 {
		t.Errorf("%d rotations, %d refused", good, bad)
	}
}

func TestABrokenSVIDKeepsTheOldOne(t *testing.T) {
	d := newDomain(t, "spiffe://example.org")
	api := newWorkloadAPI(t)
	response, p := d.svid(t, "/a")
	api.give(response)
	source := open(t, api.settings("spiffe://example.org"))
	eventually(t, "the SVID", func() bool { return source.Problem() == "" })

	broken, _ := d.svid(t, "/a")
	broken.Svids[0].X509SvidKey = []byte("rubbish")
	api.give(broken)

	eventually(t, "the problem", func() bool { return strings.Contains(source.Problem(), "sent can't be used") })
	if o := shake(t, source.Server("h2"), source.Client("h2")); !o.ok() || !o.seen.PeerCertificates[0].Equal(p.leaf) {
		t.Errorf("%v, %v", o.server, o.client)
	}
	if good, bad := source.Rotations(); good != 0 || bad != 1 {
		t.Errorf("%d rotations, %d refused", good, bad)
	}
}

func TestWhoMayConnectIsDecidedByTheSPIFFEID(t *testing.T) {
	home, far := newDomain(t, "spiffe://example.org"), newDomain(t, "spiffe://far.org")
	response, _ := home.svid(t, "/server", far)
	ids := []string{"spiffe://example.org/web", "spiffe://far.org"}
	server := spiffe(t, response, ids...).Server("h2")
	stranger := newDomain(t, "spiffe://nowhere.org")
	impostor := newDomain(t, "spiffe://far.org") // the name, but another key
	for _, c := range []struct {
		name string
		from domain
		path string
		want []string // empty: let in
	}{
		{"a listed ID", home, "/web", nil},
		{"any ID of a listed domain", far, "/whoever/it/is", nil},
		{"another ID of the domain", home, "/worker", []string{"SPIFFE ID spiffe://example.org/worker is not allowed", "allowed: spiffe://example.org/web, spiffe://far.org"}},
		{"an unknown domain", stranger, "/web", []string{"trust domain spiffe://nowhere.org is not known"}},
		{"an impostor", impostor, "/web", []string{"not trusted", "another key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			response, _ := c.from.svid(t, c.path, home)
			o := shake(t, server, spiffe(t, response, "spiffe://example.org/server").Client("h2"))
			if c.want == nil {
				if !o.ok() {
					t.Errorf("%v, %v", o.server, o.client)
				}
				return
			}
			says(t, o.server, c.want...)
			says(t, o.client, "the peer refused our certificate")
		})
	}
}

func TestAnEndpointWithAnotherSPIFFEIDIsRefused(t *testing.T) {
	d := newDomain(t, "spiffe://example.org")
	response, _ := d.svid(t, "/billing")
	server := spiffe(t, response, "spiffe://example.org").Server("h2")
	response, _ = d.svid(t, "/web")
	client := spiffe(t, response, "spiffe://example.org/orders")

	o := shake(t, server, client.Client("h2"))

	says(t, o.client, "SPIFFE ID spiffe://example.org/billing is not allowed; allowed: spiffe://example.org/orders")
}

func TestASPIFFEServerWantsAnSVID(t *testing.T) {
	d := newDomain(t, "spiffe://example.org")
	response, _ := d.svid(t, "/server")
	server := spiffe(t, response, "spiffe://example.org").Server("h2")
	f := newFolder(t, d.issue(t, leaf{}), d.authority)

	says(t, shake(t, server, open(t, f.caOnly()).Client("h2")).server, "the peer sent no client certificate")
	says(t, shake(t, server, open(t, f.mutual()).Client("h2")).server, "the peer has no SPIFFE ID", "no URI SAN")
}
