package conformance

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/policy"
)

// defaultMethod is what calls are to that name none.
const defaultMethod = "/t.T/A"

// defaultEndpoints is how many endpoints a row has that says nothing.
const defaultEndpoints = 2

// row is one behaviour: a policy, and what comes of a script under it.
type row struct {
	Name   string
	Policy yaml.Node
	// Methods are overrides by method.
	Methods map[string]yaml.Node
	// Endpoints is how many there are; 0: the service is a resource.
	Endpoints *int
	// Doors are those that the row is for; empty: all.
	Doors  []string
	Script []step

	file     string
	settings policy.Settings
	policies map[int]policy.Settings // of steps that reload, by index
}

// step is one moment of a script: at most one thing happens, and then calls
// stand as Then says.
type step struct {
	At time.Duration

	// What happens. Each names calls.
	Call, End, Cancel, Say, Head names
	With                         with
	how                          `yaml:",inline"`
	Policy                       yaml.Node // a reload
	Drain                        string    // an endpoint by its letter, or "all"

	// What stands then.
	Then     wants
	Breakers map[string]string
	Observed map[string]uint64
	Actions  map[string]uint64
}

// with is what a call brings along.
type with struct {
	Method      string
	Timeout     *time.Duration
	Criticality string
	Idempotent  bool
	NoRetry     bool `yaml:"no_retry"`
	Stream      bool // its request stays open
	Metadata    map[string]string
}

// Get implements policy.Metadata.
func (w with) Get(name string) string { return w.Metadata[name] }

func (w with) method() string {
	if w.Method == "" {
		return defaultMethod
	}
	return w.Method
}

func (w with) arrival() policy.Arrival {
	a := policy.Arrival{Timeout: policy.NoTimeout, Metadata: w, NoRetry: w.NoRetry, Idempotent: w.Idempotent}
	if w.Timeout != nil {
		a.Timeout = *w.Timeout
	}
	a.Criticality, _ = policy.ParseCriticality(w.Criticality)
	return a
}

// how is how an attempt ends.
type how struct {
	Code     code
	Pushback *pushback
	// Unreached, Unprocessed and Lost are not the endpoint's answers: there was
	// no connection, the endpoint refused the stream, the connection broke.
	Unreached, Unprocessed, Lost bool
	// Attempt is which one; 0: the latest under way.
	Attempt int
}

// ending is what the core is told.
func (h how) ending() policy.Ending {
	e := policy.Ending{Result: policy.Result{Code: policy.Code(h.Code)}}
	switch {
	case h.Unreached:
		e.Result, e.Unreached = policy.Result{Code: policy.Unavailable, Reason: policy.ConnectFailed}, true
	case h.Unprocessed:
		e.Result, e.Unprocessed = policy.Result{Code: policy.Unavailable, Reason: policy.Draining}, true
	case h.Lost:
		e.Result = policy.Result{Code: policy.Unavailable, Reason: policy.ConnectionLost}
	}
	if h.Pushback != nil {
		if e.Pushback = max(time.Duration(*h.Pushback), 1); *h.Pushback < 0 {
			e.Pushback = policy.NoMore
		}
	}
	return e
}

// code is a gRPC status code by its name.
type code policy.Code

// UnmarshalYAML implements yaml.Unmarshaler.
func (c *code) UnmarshalYAML(n *yaml.Node) error {
	known, ok := policy.ParseCode(n.Value)
	if !ok {
		return fmt.Errorf("line %d: %q is no gRPC status code", n.Line, n.Value)
	}
	*c = code(known)
	return nil
}

// pushback is a duration, or "never", which is negative.
type pushback time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (p *pushback) UnmarshalYAML(n *yaml.Node) error {
	if n.Value == "never" {
		*p = -1
		return nil
	}
	d, err := time.ParseDuration(n.Value)
	*p = pushback(d)
	return err
}

// names are calls: "c1", "c1 c4", "c1..c5".
type names []string

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *names) UnmarshalYAML(n *yaml.Node) (err error) {
	*s, err = expand(n.Value)
	return err
}

func expand(text string) (all names, err error) {
	for _, word := range strings.Fields(text) {
		first, last, ranged := strings.Cut(word, "..")
		if !ranged {
			all = append(all, word)
			continue
		}
		stem := strings.TrimRight(first, "0123456789")
		from, err1 := strconv.Atoi(first[len(stem):])
		to, err2 := strconv.Atoi(strings.TrimPrefix(last, stem))
		if err1 != nil || err2 != nil || to < from {
			return nil, fmt.Errorf("%q is no range of calls; want one like c1..c5", word)
		}
		for i := from; i <= to; i++ {
			all = append(all, stem+strconv.Itoa(i))
		}
	}
	return all, nil
}

// want is how calls stand.
type want struct {
	calls names
	some  bool // at least one of them does
	text  string
	at    []string // letters of the endpoints that attempts under way are at
}

type wants []want

// UnmarshalYAML implements yaml.Unmarshaler.
func (w *wants) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: want calls and how they stand", n.Line)
	}
	for i := 0; i < len(n.Content); i += 2 {
		who, some := strings.CutPrefix(n.Content[i].Value, "some ")
		calls, err := expand(who)
		if err != nil {
			return fmt.Errorf("line %d: %w", n.Line, err)
		}
		text, at, _ := strings.Cut(n.Content[i+1].Value, " at ")
		*w = append(*w, want{calls: calls, some: some, text: text, at: strings.Fields(at)})
	}
	return nil
}

// random reports whether what the row's calls come to is left to chance.
func (r *row) random() bool {
	return slices.ContainsFunc(r.Script, func(s step) bool {
		return slices.ContainsFunc(s.Then, func(w want) bool { return w.some })
	})
}

func (r *row) endpoints() int {
	if r.Endpoints == nil {
		return defaultEndpoints
	}
	return *r.Endpoints
}

// isFor reports whether the row is for a door.
func (r *row) isFor(door string) bool { return len(r.Doors) == 0 || slices.Contains(r.Doors, door) }

// rows reads all tables.
func rows(t testing.TB) []*row {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []*row
	seen := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var table []*row
		decoder := yaml.NewDecoder(bytes.NewReader(text))
		decoder.KnownFields(true)
		if err := decoder.Decode(&table); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, r := range table {
			r.file = strings.TrimSuffix(filepath.Base(file), ".yaml")
			if err := r.check(); err != nil {
				t.Fatalf("%s: %s: %v", file, r.Name, err)
			}
			if seen[r.file+r.Name] {
				t.Fatalf("%s: two rows are called %q", file, r.Name)
			}
			seen[r.file+r.Name] = true
		}
		all = append(all, table...)
	}
	return all
}

// check finds what makes no sense, and resolves the row's policies.
func (r *row) check() (err error) {
	if r.Name == "" || len(r.Script) == 0 {
		return fmt.Errorf("a row wants a name and a script")
	}
	for _, d := range r.Doors {
		if !slices.Contains(doors, d) {
			return fmt.Errorf("%q is no door; want some of %v", d, doors)
		}
	}
	if r.settings, err = parse(&r.Policy, r.Methods); err != nil {
		return err
	}
	r.policies = make(map[int]policy.Settings)
	last, says := time.Duration(0), 0
	for i := range r.Script {
		s := &r.Script[i]
		if s.At < last {
			return fmt.Errorf("step %d is at %v, before the one ahead of it", i+1, s.At)
		}
		last = s.At
		says += len(s.Then) + len(s.Breakers) + len(s.Observed) + len(s.Actions)
		if !s.Policy.IsZero() {
			if r.policies[i], err = parse(&s.Policy, r.Methods); err != nil {
				return fmt.Errorf("step %d: %w", i+1, err)
			}
		}
	}
	if says == 0 {
		return fmt.Errorf("the script expects nothing")
	}
	return nil
}

// parse reads a policy and its overrides as a configuration file's.
func parse(p *yaml.Node, methods map[string]yaml.Node) (policy.Settings, error) {
	type override struct {
		Method string
		Policy *yaml.Node
	}
	type service struct {
		Name      string
		Endpoints any
		Policy    *yaml.Node `yaml:",omitempty"`
		Methods   []override `yaml:",omitempty"`
	}
	s := service{Name: "subject", Endpoints: map[string]any{"static": []map[string]string{{"address": "127.0.0.1:1"}}}}
	if !p.IsZero() {
		s.Policy = p
	}
	for method, p := range methods {
		s.Methods = append(s.Methods, override{method, &p})
	}
	text, err := yaml.Marshal(map[string]any{"chaos": map[string]bool{"enabled": true}, "services": []service{s}})
	if err != nil {
		return policy.Settings{}, err
	}
	c, err := config.Parse("row", text)
	if err != nil {
		return policy.Settings{}, fmt.Errorf("%w in\n%s", err, text)
	}
	return c.Services[0].Settings(), nil
}
