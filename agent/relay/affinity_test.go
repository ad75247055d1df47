package relay

import (
	"fmt"
	"testing"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestCallsOfOneKeyGoToOneEndpoint(t *testing.T) {
	// Given three endpoints that are chosen by hash,
	var addresses []string
	for range 3 {
		address, _ := (&echoServer{}).start(t)
		addresses = append(addresses, address)
	}
	for about, c := range map[string]struct {
		hashOn policy.HashPolicy
		name   string
	}{
		"a header": {policy.HashPolicy{Header: "x-user"}, "x-user"},
		"what the caller asks for, whatever the policy names": {policy.HashPolicy{Header: "x-user"}, "outrigger-hash-key"},
	} {
		f := newFixture(t, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RingHash}, HashOn: c.hashOn}, addresses...)
		cc := f.client(t)
		// when each of 20 users makes five calls, then all five go to one of them,
		used := make(map[string]bool)
		for user := range 20 {
			home := ""
			for range 5 {
				var header metadata.MD
				ctx := metadata.AppendToOutgoingContext(testContext(t), c.name, fmt.Sprint("user-", user), "outrigger-explain", "true")
				if _, err := unary(ctx, cc, nil, grpc.Header(&header)); err != nil {
					t.Fatal(err)
				}
				at := header.Get("outrigger-endpoint")
				if len(at) != 1 || home != "" && at[0] != home {
					t.Fatalf("%s: user %d went to %v, and to %s before", about, user, at, home)
				}
				home = at[0]
			}
			used[home] = true
		}
		// and the users share all three.
		if len(used) != 3 {
			t.Errorf("%s: %d endpoints for 20 users", about, len(used))
		}
	}
}

func TestCookiesThatCameInPiecesAreOne(t *testing.T) {
	r := request{fields: []hpack.HeaderField{{Name: "cookie", Value: "a=1"}, {Name: "x-user", Value: "ann"}, {Name: "cookie", Value: "b=2"}, {Name: "x-user", Value: "bob"}}}
	if got := r.Get("cookie"); got != "a=1; b=2" {
		t.Errorf("%q", got)
	}
	if got := r.Get("x-user"); got != "ann" {
		t.Errorf("%q", got)
	}
}
