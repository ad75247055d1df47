package interceptors

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"
	"google.golang.org/grpc/status"

	endpoints "github.com/outrigger-rpc/outrigger/balancer"
)

// BalancerName is what a service configuration calls the balancer. Its
// configuration names a Client of this process, so that several may live in
// one: Client.DialOptions writes it.
const BalancerName = "outrigger"

func init() { balancer.Register(balancerBuilder{}) }

// registry finds Clients by name. It keeps none alive: a ClientConn does that,
// by its interceptors.
var registry sync.Map // string → weak.Pointer[Client]

func register(c *Client) {
	registry.Store(c.name, weak.Make(c))
	runtime.AddCleanup(c, func(name string) { registry.Delete(name) }, c.name)
}

// balancerConfig is the balancer's part of a service configuration, read.
type balancerConfig struct {
	serviceconfig.LoadBalancingConfig `json:"-"`

	Client string `json:"client"`
	client *Client
}

func (c *Client) serviceConfig() string {
	return `{"loadBalancingConfig":[{"` + BalancerName + `":{"client":` + strconv.Quote(c.name) + `}}]}`
}

type balancerBuilder struct{}

// Name implements balancer.Builder.
func (balancerBuilder) Name() string { return BalancerName }

// ParseConfig implements balancer.ConfigParser.
func (balancerBuilder) ParseConfig(raw json.RawMessage) (serviceconfig.LoadBalancingConfig, error) {
	config := &balancerConfig{}
	if err := json.Unmarshal(raw, config); err != nil {
		return nil, fmt.Errorf("balancer %s: %w", BalancerName, err)
	}
	if p, ok := registry.Load(config.Client); ok {
		if p, ok := p.(weak.Pointer[Client]); ok {
			config.client = p.Value()
		}
	}
	if config.client == nil {
		return nil, fmt.Errorf("balancer %s: no interceptors.Client is called %q; its configuration comes from Client.DialOptions", BalancerName, config.Client)
	}
	return config, nil
}

// Build implements balancer.Builder.
func (balancerBuilder) Build(cc balancer.ClientConn, o balancer.BuildOptions) balancer.Balancer {
	return &connections{cc: cc, target: o.Target.String(), conns: make(map[*endpoints.Endpoint]*conn)}
}

// balances reports whether the ClientConn follows the Client's balancer.
func (c *Client) balances(cc *grpc.ClientConn) bool {
	if cc == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.targets[cc.CanonicalTarget()] > 0
}

func errOtherBalancer(cc *grpc.ClientConn) error {
	target := "(none)"
	if cc != nil {
		target = cc.CanonicalTarget()
	}
	return status.Errorf(codes.FailedPrecondition, "interceptors: the ClientConn to %s does not use the balancer %s: is there a WithDefaultServiceConfig after Client.DialOptions? "+
		"Leave it out, or use Client.Unary and Client.Stream instead", target, BalancerName)
}

// connections is the balancer of one ClientConn: a connection to each endpoint
// of the Service.
type connections struct {
	cc     balancer.ClientConn
	target string

	mu        sync.Mutex
	client    *Client // nil until the first update
	foreign   *endpoints.Picker
	addresses map[string][]resolver.Address // by endpoint; what the resolver knows beyond the address
	conns     map[*endpoints.Endpoint]*conn
	problem   error // of the resolver
	barred    bool  // the endpoints are another target's: no call goes through here
	provides  bool  // this balancer's resolver sets the Service's endpoints
	closed    bool
	catching  sync.WaitGroup // goroutines of catchUp
	caught    bool           // one is under way
}

// conn is the connection to one endpoint.
type conn struct {
	endpoint *endpoints.Endpoint
	sub      balancer.SubConn
	// What follows belongs to connections.mu; pickers have copies.
	state  connectivity.State
	failed error // why there is none; nil: the first one is being made, or stands
}

// UpdateClientConnState implements balancer.Balancer.
func (b *connections) UpdateClientConnState(s balancer.ClientConnState) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	config, ok := s.BalancerConfig.(*balancerConfig)
	if !ok {
		return fmt.Errorf("balancer %s: the configuration is a %T; use Client.DialOptions", BalancerName, s.BalancerConfig)
	}
	b.use(config.client)
	b.problem, b.barred = nil, false
	if s.ResolverState.Attributes.Value(ownEndpoints{}) == nil {
		if err := b.resolved(s.ResolverState); err != nil {
			b.barred = true
			b.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: failing{err}})
			return nil // another resolution would not mend it
		}
	}
	b.sync()
	return nil
}

// use makes the balancer that of a Client.
func (b *connections) use(c *Client) {
	if b.client == c {
		return
	}
	b.leave()
	b.client = c
	b.foreign = endpoints.NewPicker(c.service.Policy().LoadBalancing)
	c.mu.Lock()
	c.targets[b.target]++
	c.mu.Unlock()
}

// leave takes the balancer from its Client.
func (b *connections) leave() {
	c := b.client
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.targets[b.target]--; c.targets[b.target] == 0 {
		delete(c.targets, b.target)
	}
	if b.provides {
		if c.sources--; c.sources == 0 {
			c.source = ""
		}
		b.provides = false
	}
	b.client = nil
}

// resolved makes what the resolver found the Service's endpoints.
func (b *connections) resolved(s resolver.State) error {
	c := b.client
	c.mu.Lock()
	switch {
	case b.provides:
	case c.sources > 0 && c.source != b.target:
		source := c.source
		c.mu.Unlock()
		return fmt.Errorf("balancer %s: the endpoints of service %s come from %s already, not from %s too; give each target a policy.Service of its own",
			BalancerName, c.service.Name(), source, b.target)
	default:
		c.source, b.provides = b.target, true
		c.sources++
	}
	c.mu.Unlock()
	specs := make([]endpoints.Spec, 0, len(s.Endpoints))
	b.addresses = make(map[string][]resolver.Address, len(s.Endpoints))
	for _, e := range s.Endpoints {
		if len(e.Addresses) == 0 {
			continue
		}
		address := e.Addresses[0].Addr
		if _, twice := b.addresses[address]; twice {
			continue
		}
		b.addresses[address] = e.Addresses
		specs = append(specs, endpoints.Spec{Address: address})
	}
	if !same(c.service.Endpoints(), specs) {
		c.service.SetEndpoints(specs)
	}
	return nil
}

// same reports whether the set already is what the specs say.
func same(set *endpoints.Set, specs []endpoints.Spec) bool {
	if set.Len() != len(specs) {
		return false
	}
	for i, e := range set.All() {
		if e.Address() != specs[i].Address {
			return false
		}
	}
	return true
}

// sync makes the connections those of the Service's endpoints. b.mu is held.
func (b *connections) sync() {
	set := b.client.service.Endpoints()
	wanted := make(map[*endpoints.Endpoint]bool, set.Len())
	for _, e := range set.All() {
		wanted[e] = true
		if b.conns[e] == nil {
			b.connect(e)
		}
	}
	for e, c := range b.conns {
		if !wanted[e] {
			delete(b.conns, e)
			c.sub.Shutdown()
		}
	}
	b.publish()
}

// connect begins the connection to an endpoint, and keeps it.
func (b *connections) connect(e *endpoints.Endpoint) {
	addresses := b.addresses[e.Address()]
	if addresses == nil {
		addresses = []resolver.Address{{Addr: e.Address()}}
	}
	c := &conn{endpoint: e, state: connectivity.Idle}
	listen := func(s balancer.SubConnState) { b.changed(c, s) }
	sub, err := b.cc.NewSubConn(addresses, balancer.NewSubConnOptions{StateListener: listen}) //nolint:staticcheck // deprecated for what may come: one address each
	if err != nil {
		return // the ClientConn is closing
	}
	c.sub = sub
	b.conns[e] = c
	e.SetConnected(false, "not connected yet", b.client.now())
	sub.Connect()
}

// changed hears of a connection's state.
func (b *connections) changed(c *conn, s balancer.SubConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.conns[c.endpoint] != c {
		return
	}
	c.state = s.ConnectivityState
	now := b.client.now()
	switch s.ConnectivityState {
	case connectivity.Ready:
		c.failed = nil
		c.endpoint.SetConnected(true, "", now)
	case connectivity.TransientFailure:
		if c.failed = s.ConnectionError; c.failed == nil {
			c.failed = errors.New("no connection")
		}
		c.endpoint.SetConnected(false, c.failed.Error(), now)
		b.cc.ResolveNow(resolver.ResolveNowOptions{})
	case connectivity.Idle:
		c.endpoint.SetConnected(false, "the connection was closed", now)
		c.sub.Connect()
	}
	b.publish()
}

// publish gives grpc-go a picker for the present state. b.mu is held.
func (b *connections) publish() {
	if b.closed || b.barred {
		return
	}
	p := &picker{connections: b, client: b.client, foreign: b.foreign, set: b.client.service.Endpoints(), problem: b.problem, conns: make(map[*endpoints.Endpoint]conn, len(b.conns))}
	overall := connectivity.TransientFailure
	for e, c := range b.conns {
		p.conns[e] = *c
		switch {
		case c.state == connectivity.Ready:
			overall = connectivity.Ready
		case c.failed == nil && overall != connectivity.Ready:
			overall = connectivity.Connecting
		}
	}
	p.overall = overall
	b.cc.UpdateState(balancer.State{ConnectivityState: overall, Picker: p})
}

// catchUp connects to endpoints that a picker met and does not know: somebody
// else changed them.
func (b *connections) catchUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.caught {
		return
	}
	b.caught = true
	b.catching.Go(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.caught = false
		if !b.closed {
			b.sync()
		}
	})
}

// ResolverError implements balancer.Balancer. Endpoints that are known stay.
func (b *connections) ResolverError(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problem = err
	if b.client == nil {
		b.cc.UpdateState(balancer.State{ConnectivityState: connectivity.TransientFailure, Picker: failing{fmt.Errorf("name resolver error: %w", err)}})
		return
	}
	b.publish()
}

// UpdateSubConnState implements balancer.Balancer; connections have listeners
// of their own, so it is never called.
func (b *connections) UpdateSubConnState(balancer.SubConn, balancer.SubConnState) {}

// ExitIdle implements balancer.Balancer; no connection stays idle.
func (b *connections) ExitIdle() {}

// Close implements balancer.Balancer.
func (b *connections) Close() {
	b.mu.Lock()
	b.closed = true
	b.leave()
	b.mu.Unlock()
	b.catching.Wait()
}
