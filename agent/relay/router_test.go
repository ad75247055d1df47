package relay

import (
	"errors"
	"strings"
	"testing"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestTableFindsTheService(t *testing.T) {
	target := func(name string) Target { return Target{Service: policy.NewService(name, policy.Settings{}, nil)} }
	table := NewTable([]Route{
		{Target: target("greeter"), Authorities: []string{"greeter", "greeter.default.svc:50051"}},
		{Target: target("admin"), Authorities: []string{"greeter"}, Prefixes: []string{"/admin.Users/"}},
		{Target: target("health"), Prefixes: []string{"/grpc.health.v1.Health/"}},
		{Target: target("short"), Prefixes: []string{"/admin."}},
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
		got, why := table.Find(Query{Authority: tc.authority, Path: tc.path, Service: tc.name})
		switch {
		case tc.want == "" && (got != nil || why == ""):
			t.Errorf("%s: got %v, %q; want a reason", tc.about, got, why)
		case tc.want != "" && (got == nil || got.Service.Name() != tc.want):
			t.Errorf("%s: got %v (%s), want %s", tc.about, got, why, tc.want)
		}
	}
}

func TestNoRouteNamesWhatThereIs(t *testing.T) {
	table := NewTable([]Route{{Target: Target{Service: policy.NewService("greeter", policy.Settings{}, nil)}, Authorities: []string{"greeter"}}}, nil)

	_, why := table.Find(Query{Authority: "greter", Path: "/a/b"})

	if !strings.Contains(why, `"greter"`) || !strings.Contains(why, "services: greeter") {
		t.Fatalf("got %q", why)
	}
}

func TestATunnelledCallIsRoutedByItsAuthorityAndThenByItsTunnel(t *testing.T) {
	target := func(name string) Target { return Target{Service: policy.NewService(name, policy.Settings{}, nil)} }
	asked := ""
	table := NewTable([]Route{
		{Target: target("inner"), Authorities: []string{"inner"}},
		{Target: target("outer"), Authorities: []string{"10.0.0.1:50051"}},
	}, func(authority string) (*Target, error) {
		asked = authority
		return nil, errors.New("not allowed")
	})

	byAuthority, _ := table.Find(Query{Authority: "inner", Path: "/a/b", Tunnel: "10.0.0.1:50051"})
	byTunnel, _ := table.Find(Query{Authority: "whatever", Path: "/a/b", Tunnel: "10.0.0.1:50051"})
	neither, why := table.Find(Query{Authority: "whatever", Path: "/a/b", Tunnel: "10.0.0.9:50051"})

	if byAuthority.Service.Name() != "inner" || byTunnel.Service.Name() != "outer" {
		t.Fatalf("got %s and %s", byAuthority.Service.Name(), byTunnel.Service.Name())
	}
	if neither != nil || asked != "10.0.0.9:50051" || !strings.Contains(why, "not allowed") {
		t.Fatalf("got %v, asked for %q, because %q", neither, asked, why)
	}
}
