package config

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"

	"github.com/outrigger-rpc/outrigger/balancer"
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// Bounds of registered endpoints where nothing else is written.
const (
	DefaultMaxLease     = 5 * time.Minute
	DefaultMaxEndpoints = 1000
)

// defaultRefresh is dns.refresh where it is not written.
const defaultRefresh = 5 * time.Second

// Discovery is where a service's endpoints come from that are not written in the
// configuration: one of these, or none of them. Two are told apart by
// reflect.DeepEqual.
type Discovery struct {
	DNS        *DNS
	File       string // a path; empty: no file
	Registered *Registered
	Kubernetes *Kubernetes
}

// None reports whether the endpoints are those that are written.
func (d Discovery) None() bool { return d == Discovery{} }

// DNS asks for the addresses of Host, or the SRV records of SRV.
type DNS struct {
	Host    string
	Port    uint16
	SRV     string
	Refresh time.Duration
	Servers []string // empty: those of resolv.conf
}

// Registered bounds what programs register.
type Registered struct {
	MaxLease     time.Duration
	MaxEndpoints int
}

// Kubernetes names a Kubernetes service. Empty fields: the pod's namespace, the
// only port, the pod's service account.
type Kubernetes struct {
	Namespace, Service, Port string
	Weights                  bool
	Kubeconfig               string
}

// discovery resolves the source of a service's endpoints.
func (f *file) discovery(path string, m *configv1.Endpoints) Discovery {
	switch {
	case m.GetDns() != nil:
		return Discovery{DNS: f.dns(path+".dns", m.GetDns())}
	case m.GetFile() != nil:
		return Discovery{File: f.beside(m.GetFile().GetPath())}
	case m.GetRegistered() != nil:
		r := m.GetRegistered()
		return Discovery{Registered: &Registered{duration(r.GetMaxLease(), DefaultMaxLease), int(or(r.MaxEndpoints, DefaultMaxEndpoints))}}
	case m.GetKubernetes() != nil:
		k := m.GetKubernetes()
		resolved := &Kubernetes{Namespace: k.GetNamespace(), Service: k.GetService(), Port: k.GetPort(), Weights: k.GetWeights()}
		if k.GetKubeconfig() != "" {
			resolved.Kubeconfig = f.beside(k.GetKubeconfig())
		}
		return Discovery{Kubernetes: resolved}
	}
	return Discovery{}
}

// beside returns a path that begins at the configuration's folder; empty stays
// empty.
func (f *file) beside(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(f.name), path)
}

func (f *file) dns(path string, m *configv1.DnsEndpoints) *DNS {
	d := &DNS{Host: m.GetHost(), Port: uint16(m.GetPort()), SRV: m.GetSrv(), Refresh: duration(m.GetRefresh(), defaultRefresh), Servers: m.GetServers()}
	switch {
	case d.Host == "" && d.SRV == "":
		f.refuse(path, "names nothing to ask for; want host and port, or srv")
	case d.Host != "" && d.SRV != "":
		f.refuse(path+".srv", "%s beside host: %s; want one of them", d.SRV, d.Host)
	case d.SRV != "" && d.Port != 0:
		f.refuse(path+".port", "%d is not used: SRV records say the ports; leave it out", d.Port)
	case d.Host != "" && d.Port == 0:
		f.refuse(path, "lacks the port of its endpoints; want port: 1 to 65535")
	}
	if strings.Contains(d.Host, ":") {
		if a, wrong := parseAddress("[" + d.Host + "]:1"); wrong != "" || !strings.Contains(a.host, ":") {
			f.refuse(path+".host", "%q is no name and no IP address; want a name without its port", d.Host)
		}
	}
	for i, server := range d.Servers {
		if a, wrong := parseAddress(server); wrong != "" || a.unix != "" || a.notDialable() != "" {
			f.refuse(fmt.Sprintf("%s.servers[%d]", path, i), "%q: want host:port, such as 127.0.0.1:53", server)
		}
	}
	return d
}

// tlsName is the name that certificates of endpoints from the source have,
// where the endpoints' addresses are no names; empty: not known.
func (d Discovery) tlsName() string {
	if d.DNS == nil {
		return ""
	}
	name := d.DNS.Host
	if d.DNS.SRV != "" { // _service._proto.name
		name = d.DNS.SRV
		for strings.HasPrefix(name, "_") {
			_, rest, _ := strings.Cut(name, ".")
			name = rest
		}
	}
	return strings.TrimSuffix(name, ".")
}

// CheckEndpoint says why nothing can be called at an address; nil: it can.
func CheckEndpoint(text string) error {
	a, wrong := parseAddress(text)
	if wrong == "" {
		wrong = a.notDialable()
	}
	if wrong != "" {
		return fmt.Errorf("%q: %s", text, wrong)
	}
	return nil
}

// written are the endpoints that a list names.
func written(list []*configv1.Endpoint) (specs []balancer.Spec) {
	for _, e := range list {
		specs = append(specs, balancer.Spec{Address: e.GetAddress(), Weight: or(e.Weight, 1), Zone: e.GetZone(), Priority: e.GetPriority()})
	}
	return specs
}

// listKey is what stands before the paths in a file that is nothing but a list.
const listKey = "static"

// ReadEndpoints reads a file of endpoints: a YAML or JSON list of what static
// has. Its addresses must not be the agent's own. The error is an *Error where
// the file was read and refused.
func (c *Config) ReadEndpoints(path string) ([]balancer.Spec, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	return c.parseEndpoints(path, data)
}

func (c *Config) parseEndpoints(name string, data []byte) ([]balancer.Spec, error) {
	message := &configv1.Endpoints{}
	root, issue := readText(data)
	if issue != nil {
		return nil, newError(name, []Issue{*issue}, 0)
	}
	if root == nil || root.ShortTag() == "!!null" {
		return nil, newError(name, []Issue{{Line: 1, Column: 1, Message: `is empty; want a list such as [{address: "127.0.0.1:50051"}], or [] for none`}}, 0)
	}
	f := &file{name: name, message: message.ProtoReflect().Descriptor()}
	f.root = &yaml.Node{Kind: yaml.MappingNode, Line: root.Line, Column: root.Column, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: listKey, Line: root.Line, Column: root.Column}, root}}
	f.list(root, f.message.Fields().ByName(listKey), listKey)
	f.nextPass()
	if len(f.issues) == 0 && len(root.Content) > 0 {
		f.decodeList(message)
		f.nextPass()
		f.rules(message)
		f.nextPass()
	}
	specs := written(message.GetStatic())
	f.addresses(listKey, specs, (&file{}).listeners(c))
	if len(f.issues) > 0 {
		for i := range f.issues {
			f.issues[i].Path = strings.TrimPrefix(f.issues[i].Path, listKey)
			f.issues[i].Message = strings.ReplaceAll(f.issues[i].Message, listKey+"[", "[")
		}
		return nil, newError(name, f.issues, f.untold)
	}
	return specs, nil
}

// decodeList fills the message with what has the right shape, as decode does.
func (f *file) decodeList(message *configv1.Endpoints) {
	defer func() {
		if p := recover(); p != nil {
			f.refuse(listKey, "the reader failed on this text (%v); please report it with the file", p)
		}
	}()
	text, err := yaml.Marshal(f.root)
	if err == nil {
		err = protoyaml.Unmarshal(text, message)
	}
	if err != nil {
		f.refuse(listKey, "%v", err)
	}
}
