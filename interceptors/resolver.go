package interceptors

import (
	"fmt"

	"google.golang.org/grpc/attributes"
	"google.golang.org/grpc/resolver"
)

// Scheme is that of targets whose endpoints are the Service's own:
// "outrigger:///NAME", NAME being the Service's name.
const Scheme = "outrigger"

// ownEndpoints says in a resolver's state that the endpoints are the Service's.
type ownEndpoints struct{}

// resolverBuilder makes the resolver of one Client. A ClientConn gets it by a
// DialOption, so that it is that Client's alone.
type resolverBuilder struct{ client *Client }

// Scheme implements resolver.Builder.
func (resolverBuilder) Scheme() string { return Scheme }

// Build implements resolver.Builder.
func (b resolverBuilder) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	if name := b.client.service.Name(); target.Endpoint() != name {
		return nil, fmt.Errorf("resolver %s: the Client is of service %s, and the target names %q; want %s:///%s", Scheme, name, target.Endpoint(), Scheme, name)
	}
	// The balancer reads the endpoints itself, at once and whenever they change.
	if err := cc.UpdateState(resolver.State{Attributes: attributes.New(ownEndpoints{}, true)}); err != nil {
		return nil, err
	}
	return ownResolver{}, nil
}

// ownResolver has nothing to look up.
type ownResolver struct{}

// ResolveNow implements resolver.Resolver.
func (ownResolver) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (ownResolver) Close() {}
