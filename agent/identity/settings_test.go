package identity

import (
	"crypto/tls"
	"strings"
	"testing"
)

func TestCheckTellsWhatIsWrongWithoutReadingAFile(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Settings
		want string // empty: right
	}{
		{"nothing: the system's roots", Settings{}, ""},
		{"pair and CA", Settings{CertFile: "a", KeyFile: "b", CAFile: "c", MinVersion: tls.VersionTLS13}, ""},
		{"workload API", Settings{WorkloadAPI: "unix:///run/spire/agent.sock", AllowedIDs: []string{"spiffe://example.org"}}, ""},
		{"workload API over TCP", Settings{WorkloadAPI: "tcp://127.0.0.1:8081", AllowedIDs: []string{"spiffe://example.org/a"}}, ""},
		{"certificate alone", Settings{CertFile: "a"}, "certificate file a has no key file"},
		{"key alone", Settings{KeyFile: "b"}, "key file b has no certificate file"},
		{"both sources", Settings{CAFile: "c", WorkloadAPI: "unix:///s", AllowedIDs: []string{"spiffe://d"}}, "not both"},
		{"nobody allowed", Settings{WorkloadAPI: "unix:///s"}, "list the SPIFFE IDs that are allowed"},
		{"TLS 1.1", Settings{MinVersion: tls.VersionTLS11}, "TLS 1.1 can't be the oldest version"},
		{"no scheme", Settings{AllowedIDs: []string{"example.org/a"}}, `"example.org/a" is no SPIFFE ID`},
		{"bad character", Settings{AllowedIDs: []string{"spiffe://Example.org/a"}}, "is no SPIFFE ID"},
		{"empty ID", Settings{AllowedIDs: []string{""}}, "is no SPIFFE ID"},
		{"HTTP address", Settings{WorkloadAPI: "http://x", AllowedIDs: []string{"spiffe://d"}}, "no address of a Workload API"},
		{"relative socket", Settings{WorkloadAPI: "unix://run/agent.sock", AllowedIDs: []string{"spiffe://d"}}, "no address of a Workload API"},
		{"no port", Settings{WorkloadAPI: "tcp://127.0.0.1", AllowedIDs: []string{"spiffe://d"}}, "no address of a Workload API"},
		{"a name", Settings{WorkloadAPI: "tcp://localhost:1", AllowedIDs: []string{"spiffe://d"}}, "no address of a Workload API"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.s.Check()
			if (err == nil) != (c.want == "") {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
		})
	}
}

func TestATrustDomainAllowsAllOfItsIDsAndNoOthers(t *testing.T) {
	ids, err := parseAllowed([]string{"spiffe://example.org", "spiffe://other.org/orders"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{
		"spiffe://example.org/anything/at/all": true,
		"spiffe://other.org/orders":            true,
		"spiffe://other.org/orders/x":          false,
		"spiffe://other.org/order":             false,
		"spiffe://sub.example.org/a":           false,
		"spiffe://example.org.evil/a":          false,
	} {
		one, err := parseAllowed([]string{text})
		if err != nil {
			t.Fatal(err)
		}
		if got := ids.has(one[0]); got != want {
			t.Errorf("%s: allowed %v", text, got)
		}
	}
}
