package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// Changes is what differs between two configurations. The zero value: nothing.
type Changes struct {
	// Restart says what differs that can't change while the agent runs, such as
	// "egress.address: 127.0.0.1:7600 → 127.0.0.1:7700".
	Restart []string
	// Added and Removed are names of services, in the order of their file.
	Added, Removed []string
	// Changed are the services that are in both and differ, in the order of the
	// new file. What is not named keeps its state.
	Changed []ServiceChange
	// Unmatched: the mode or the defaults of unmatched calls differ.
	Unmatched bool
	// Telemetry: where metrics, traces or logs go differs.
	Telemetry bool
	// Tasks: how tasks are run differs.
	Tasks bool
	// Chaos: whether policies may hold faults differs.
	Chaos bool
}

// ServiceChange is what differs in one service.
type ServiceChange struct {
	Name string
	// Match: which calls go to it.
	Match bool
	// Policy: its policy, or one of its methods' that both have.
	Policy bool
	// Discovery: where its endpoints come from.
	Discovery bool
	// TLS: how its endpoints are connected.
	TLS bool
	// Health: how its endpoints are asked how they are.
	Health bool
	// Connections: how those to its endpoints are kept.
	Connections bool
	// Methods are those whose override came or went.
	Methods []string
	// Joined and Left are addresses of endpoints; Reweighed those that both
	// have, with another weight, zone or priority.
	Joined, Left, Reweighed []string
}

// Diff compares two configurations. Neither may be nil.
func Diff(old, new *Config) Changes {
	var c Changes
	for _, a := range []struct{ field, old, new string }{
		{"egress.address", old.Egress, new.Egress}, {"api.address", old.API, new.API}, {"admin.address", old.Admin, new.Admin},
		{"state.dir", old.StateDir, new.StateDir},
	} {
		if a.old != a.new {
			c.Restart = append(c.Restart, fmt.Sprintf("%s: %s → %s", a.field, a.old, a.new))
		}
	}
	for _, l := range []struct {
		field    string
		old, new any
	}{
		{"egress.tls and allow_uids", old.Listeners.Egress, new.Listeners.Egress}, {"api.tls and allow_uids", old.Listeners.API, new.Listeners.API},
		{"admin.tls and allow_uids", old.Listeners.Admin, new.Listeners.Admin}, {"egress.limits", old.Limits, new.Limits},
	} {
		if !reflect.DeepEqual(l.old, l.new) {
			c.Restart = append(c.Restart, l.field)
		}
	}
	c.diffTasks(old.Tasks, new.Tasks)
	before := make(map[string]*Service, len(old.Services))
	for i := range old.Services {
		before[old.Services[i].Name] = &old.Services[i]
	}
	for i := range new.Services {
		s := &new.Services[i]
		was := before[s.Name]
		delete(before, s.Name)
		if was == nil {
			c.Added = append(c.Added, s.Name)
		} else if change := was.diff(s); !reflect.DeepEqual(change, ServiceChange{Name: s.Name}) {
			c.Changed = append(c.Changed, change)
		}
	}
	for _, s := range old.Services {
		if before[s.Name] != nil {
			c.Removed = append(c.Removed, s.Name)
		}
	}
	c.Unmatched = !reflect.DeepEqual(old.Unmatched, new.Unmatched)
	c.Telemetry = old.Telemetry != new.Telemetry
	c.Chaos = old.Chaos != new.Chaos
	return c
}

// diffTasks compares the tasks blocks. Where tasks are kept stays, and so does each
// kind that apps work: they may hold leases of it.
func (c *Changes) diffTasks(old, new *Tasks) {
	c.Tasks = !reflect.DeepEqual(old, new)
	if !c.Tasks {
		return
	}
	if old == nil || new == nil {
		c.Restart = append(c.Restart, "tasks: the block comes or goes")
		return
	}
	was, is := old.Store, new.Store
	was.Keys, is.Keys = nil, nil
	if !reflect.DeepEqual(was, is) {
		c.Restart = append(c.Restart, "tasks.store, but for its encryption")
	}
	if old.MaxPayload != new.MaxPayload {
		c.Restart = append(c.Restart, fmt.Sprintf("tasks.max_payload: %d → %d", old.MaxPayload, new.MaxPayload))
	}
	for _, k := range old.Kinds {
		stays := slices.ContainsFunc(new.Kinds, func(n TaskKind) bool { return n.Name == k.Name })
		if k.App && !stays {
			c.Restart = append(c.Restart, fmt.Sprintf("tasks.kinds: %q goes", k.Name))
		}
	}
}

func (s *Service) diff(next *Service) ServiceChange {
	c := ServiceChange{
		Name:      s.Name,
		Match:     !slices.Equal(s.Authorities, next.Authorities) || !slices.Equal(s.Methods, next.Methods),
		Policy:    !reflect.DeepEqual(s.Policy, next.Policy),
		Discovery: !reflect.DeepEqual(s.Discovery, next.Discovery),
		TLS:       !reflect.DeepEqual(s.TLS, next.TLS),
		Health:    !reflect.DeepEqual(s.Health, next.Health),

		Connections: s.Connections != next.Connections,
	}
	for method, p := range next.MethodPolicies {
		if was, both := s.MethodPolicies[method]; !both {
			c.Methods = append(c.Methods, method)
		} else if !reflect.DeepEqual(was, p) {
			c.Policy = true
		}
	}
	for method := range s.MethodPolicies {
		if _, both := next.MethodPolicies[method]; !both {
			c.Methods = append(c.Methods, method)
		}
	}
	slices.Sort(c.Methods)
	before := make(map[string]balancer.Spec, len(s.Endpoints))
	for _, e := range s.Endpoints {
		before[e.Address] = e
	}
	for _, e := range next.Endpoints {
		was, both := before[e.Address]
		delete(before, e.Address)
		switch {
		case !both:
			c.Joined = append(c.Joined, e.Address)
		case was != e:
			c.Reweighed = append(c.Reweighed, e.Address)
		}
	}
	for _, e := range s.Endpoints {
		if _, left := before[e.Address]; left {
			c.Left = append(c.Left, e.Address)
		}
	}
	return c
}

// None reports whether nothing differs.
func (c Changes) None() bool { return reflect.DeepEqual(c, Changes{}) }

// String says in a line what differs, for the log.
func (c Changes) String() string {
	if c.None() {
		return "nothing changed"
	}
	var says []string
	say := func(what string, list []string) {
		if len(list) > 0 {
			says = append(says, what+" "+strings.Join(list, ", "))
		}
	}
	say("added", c.Added)
	say("removed", c.Removed)
	for _, s := range c.Changed {
		says = append(says, s.String())
	}
	if c.Unmatched {
		says = append(says, "unmatched calls")
	}
	if c.Telemetry {
		says = append(says, "telemetry")
	}
	if c.Tasks {
		says = append(says, "tasks")
	}
	if c.Chaos {
		says = append(says, "chaos")
	}
	say("only a restart changes", c.Restart)
	return strings.Join(says, "; ")
}

// String says in a few words what differs.
func (c ServiceChange) String() string {
	var says []string
	if c.Match {
		says = append(says, "match")
	}
	if c.Policy {
		says = append(says, "policy")
	}
	if c.Discovery {
		says = append(says, "endpoints")
	}
	if c.TLS {
		says = append(says, "tls")
	}
	if c.Health {
		says = append(says, "health check")
	}
	if c.Connections {
		says = append(says, "connections")
	}
	for _, m := range c.Methods {
		says = append(says, "method "+m)
	}
	for _, e := range []struct {
		sign string
		list []string
	}{{"+", c.Joined}, {"-", c.Left}, {"±", c.Reweighed}} {
		for _, address := range e.list {
			says = append(says, e.sign+address)
		}
	}
	return c.Name + " (" + strings.Join(says, ", ") + ")"
}
