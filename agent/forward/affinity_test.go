package forward

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestRequestsOfOneKeyGoToOneEndpoint(t *testing.T) {
	var addresses []string
	for range 3 {
		server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		t.Cleanup(server.Close)
		addresses = append(addresses, strings.TrimPrefix(server.URL, "http://"))
	}
	s := start(t, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.Maglev}, HashOn: policy.HashPolicy{Cookie: "session"}}, Options{}, addresses...)
	for _, c := range []struct{ name, format string }{{"Cookie", "theme=dark; session=%d"}, {"Outrigger-Hash-Key", "%d"}} {
		used := make(map[string]bool)
		for user := range 20 {
			home := ""
			for range 3 {
				at := s.ask("GET", "", c.name, fmt.Sprintf(c.format, user)).Get("Outrigger-Endpoint")
				if at == "" || home != "" && at != home {
					t.Fatalf("%s: user %d went to %q, and to %q before", c.name, user, at, home)
				}
				home = at
			}
			used[home] = true
		}
		if len(used) != 3 {
			t.Errorf("%s: %d endpoints for 20 users", c.name, len(used))
		}
	}
}
