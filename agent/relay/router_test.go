package relay

import (
	"strings"
	"testing"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestTableFindsTheService(t *testing.T) {
	service := func(name string) *policy.Service { return policy.NewService(name, policy.Settings{}, nil) }
	table := NewTable([]Route{
		{Service: service("greeter"), Authorities: []string{"greeter", "greeter.default.svc:50051"}},
		{Service: service("admin"), Authorities: []string{"greeter"}, Prefixes: []string{"/admin.Users/"}},
		{Service: service("health"), Prefixes: []string{"/grpc.health.v1.Health/"}},
		{Service: service("short"), Prefixes: []string{"/admin."}},
	}, nil)
	for _, tc := range []struct{ about, authority, path, name, want string }{
		{"by authority", "greeter", "/helloworld.Greeter/SayHello", "", "greeter"},
		{"the case of an authority does not count", "Greeter", "/helloworld.Greeter/SayHello", "", "greeter"},
		{"an authority without a port takes any port", "greeter:8080", "/helloworld.Greeter/SayHello", "", "greeter"},
		{"an authority with a port takes that port", "greeter.default.svc:50051", "/a/b", "", "greeter"},
		{"and no other", "greeter.default.svc:50052", "/a/b", "", ""},
		{"the longest prefix wins", "greeter", "/admin.Users/List", "", "admin"},
		{"over an authority too", "greeter", "/grpc.health.v1.Health/Check", "", "health"},
		{"a prefix without an authority takes all of them", "elsewhere", "/admin.Groups/List", "", "short"},
		{"by name", "anything", "/x/y", "greeter", "greeter"},
		{"an unknown name matches nothing, whatever the authority", "greeter", "/x/y", "nobody", ""},
		{"nothing matches", "elsewhere", "/x/y", "", ""},
	} {
		got, why := table.find(&request{authority: tc.authority, path: tc.path, service: tc.name})
		switch {
		case tc.want == "" && (got != nil || why == ""):
			t.Errorf("%s: got %v, %q; want a reason", tc.about, got, why)
		case tc.want != "" && (got == nil || got.Name() != tc.want):
			t.Errorf("%s: got %v (%s), want %s", tc.about, got, why, tc.want)
		}
	}
}

func TestNoRouteNamesWhatThereIs(t *testing.T) {
	table := NewTable([]Route{{Service: policy.NewService("greeter", policy.Settings{}, nil), Authorities: []string{"greeter"}}}, nil)

	_, why := table.find(&request{authority: "greter", path: "/a/b"})

	if !strings.Contains(why, `"greter"`) || !strings.Contains(why, "services: greeter") {
		t.Fatalf("got %q", why)
	}
}
