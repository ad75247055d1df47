package config

import (
	"time"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// Connections says how connections to each endpoint of a service are kept. Zero
// values: none is warm, egress.limits bound them, and they stay open.
type Connections struct {
	Warm, Max           int
	MaxAge, IdleTimeout time.Duration
}

// defaultUpstreamConnections is what egress.limits leaves out.
const defaultUpstreamConnections = 8

// shortestAge is what an age or idle time is at least: a connection that ends
// sooner costs more than it carries.
const shortestAge = time.Second

func connections(m *configv1.Connections) Connections {
	return Connections{
		Warm: int(m.GetWarm()), Max: int(m.GetMax()),
		MaxAge: duration(m.GetMaxAge(), 0), IdleTimeout: duration(m.GetIdleTimeout(), 0),
	}
}

// checkConnections holds what one level writes (own) together with what it
// inherits (whole) against the rules about several fields. most is what the
// listener's limits allow.
func (f *file) checkConnections(l level, own, whole *configv1.Connections, most int) {
	path := l.path + ".connections"
	if l.override {
		f.refuse(path, "connections serve all methods alike; want it in the service's policy")
		return
	}
	c := connections(whole)
	if own.Max != nil && c.Max > most {
		f.refuseTogether(path+".max", "%d is more than egress.limits.upstream_connections (%d) allows; want at most that, or more there", c.Max, most)
	}
	if c.Max > 0 {
		most = min(most, c.Max)
	}
	switch tooMany := c.Warm > most; {
	case tooMany && own.Warm != nil:
		f.refuseTogether(path+".warm", "%d is more than the %d connections that an endpoint may have; want at most that", c.Warm, most)
	case tooMany && own.Max != nil && c.Max == most:
		f.refuseTogether(path+".max", "%d is less than warm (%d), which is inherited; want at least that, or a warm here too", c.Max, c.Warm)
	}
	if own.GetMaxAge() != nil && c.MaxAge > 0 && c.MaxAge < shortestAge {
		f.refuse(path+".max_age", "%s is too short to be worth a connection; want at least %s, or 0s for ever", short(c.MaxAge), short(shortestAge))
	}
	if own.GetIdleTimeout() != nil && c.IdleTimeout > 0 && c.IdleTimeout < shortestAge {
		f.refuse(path+".idle_timeout", "%s is too short to be worth a connection; want at least %s, or 0s for ever", short(c.IdleTimeout), short(shortestAge))
	}
}
