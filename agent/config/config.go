// Package config reads the agent's configuration: YAML into the messages of
// outrigger.config.v1, their rules and ours checked, defaults applied, policies
// inherited, and all of it resolved once into the plain values of Config.
// Nothing behind this room sees YAML or proto.
//
//	c, err := config.Load("outrigger.yaml")
//	// err, if any, is an *Error: every issue with file, line and column
//	greeter := policy.NewService("greeter", c.Service("greeter").Settings(), nil)
//
// Default needs neither YAML nor rules and costs nothing.
package config

import (
	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// The addresses of the built-in defaults.
const (
	DefaultEgress = "127.0.0.1:7600"
	DefaultAPI    = "127.0.0.1:7601"
	DefaultAdmin  = "127.0.0.1:7602"
)

// DefaultSampleRatio is the share of calls that are traced where nothing else
// is written.
const DefaultSampleRatio = 0.1

// Config is a configuration, resolved. It is never changed once made.
type Config struct {
	// Egress, API and Admin are the addresses to open: "host:port" or
	// "unix:PATH".
	Egress, API, Admin string
	// Listeners are what those have beside their address.
	Listeners Listeners
	// Limits bound the clients of Egress.
	Limits    Limits
	Services  []Service
	Unmatched Unmatched
	Telemetry Telemetry
	// StateDir is a folder for what outlives a restart. Empty: nothing does.
	StateDir string
	// Chaos: policies may hold faults.
	Chaos bool
	// Tasks configure the task executor. nil: there is none.
	Tasks *Tasks
	// Digest is that of the text; zero for Default.
	Digest Digest
}

// Service is something that apps call.
type Service struct {
	Name string
	// Authorities, in lower case. Empty only where Methods are given: every
	// authority.
	Authorities []string
	// Methods are prefixes. Empty: every method.
	Methods   []string
	Endpoints []balancer.Spec
	// Resource: it has no endpoints and is none to call (endpoints: none).
	Resource bool
	// TLS is spoken to the endpoints. nil: plaintext.
	TLS *TLS
	// Connections say how those to each endpoint are kept.
	Connections Connections
	// Health is how the endpoints are asked how they are. nil: they are not.
	Health *HealthCheck
	// Policy is whole: the defaults with what the service says on top.
	Policy policy.Policy
	// MethodPolicies are whole, by method or prefix.
	MethodPolicies map[string]policy.Policy
	// Discovery is where endpoints come from that are not written.
	Discovery Discovery
}

// Settings are the service's policies, as policy.NewService takes them. Who this
// process is among others (balancer.Options.Identity) is not told by a file:
// whoever uses subsets sets it.
func (s *Service) Settings() policy.Settings {
	return policy.Settings{Policy: s.Policy, Methods: s.MethodPolicies, Resource: s.Resource}
}

// Service returns the service of that name; nil where there is none.
func (c *Config) Service(name string) *Service {
	for i := range c.Services {
		if c.Services[i].Name == name {
			return &c.Services[i]
		}
	}
	return nil
}

// Unmatched says what happens to calls that no service matches.
type Unmatched struct {
	// Dial: the authority is taken as host:port. Otherwise the call is
	// refused.
	Dial bool
	// Policy is what dialled authorities are under: the defaults.
	Policy policy.Policy
	// Connections say how those to each of them are kept.
	Connections Connections
	// Health is how they are asked how they are. nil: they are not.
	Health *HealthCheck
	// Allow is where dialling may lead. Empty: everywhere that is usual.
	Allow []DialRule
}

// AccessLog says which calls are logged.
type AccessLog uint8

// The access log's modes.
const (
	// LogErrors, the zero value: calls that failed or were refused.
	LogErrors AccessLog = iota
	LogNothing
	LogAll
)

// Telemetry says where metrics, traces and logs go.
type Telemetry struct {
	// OTLPEndpoint is a collector; empty: none.
	OTLPEndpoint string
	// SampleRatio of the calls is traced where the caller does not decide.
	SampleRatio float64
	// Prometheus: /metrics is served.
	Prometheus bool
	AccessLog  AccessLog
}

// Default returns what the agent runs with when no file is given: no services,
// every authority is dialled and watched, nothing is enforced.
func Default() *Config {
	return &Config{
		Egress: DefaultEgress, API: DefaultAPI, Admin: DefaultAdmin,
		Unmatched: Unmatched{Dial: true, Policy: policy.Default()},
		Telemetry: Telemetry{SampleRatio: DefaultSampleRatio, Prometheus: true},
	}
}
