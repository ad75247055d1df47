package agent

import (
	"crypto/tls"
	"net"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/identity"
)

// door is one of the agent's own addresses: its listener, and who it is there.
type door struct {
	field    string // its block in the configuration
	listener net.Listener
	identity *identity.Source // nil: plaintext
}

// openDoor listens on an address under its options.
func (a *Agent) openDoor(field, address string, o config.ListenerOptions) (*door, error) {
	d := &door{field: field}
	var err error
	if o.TLS != nil {
		if d.identity, err = identity.Open(field+".tls", identitySettings(o.TLS), a.logger); err != nil {
			return nil, err
		}
	}
	if d.listener, err = listen(field+".address", address, o.AllowUIDs, a.logger); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// tls returns what clients are answered with, or nil for plaintext.
func (d *door) tls(protocols ...string) *tls.Config {
	if d.identity == nil {
		return nil
	}
	return d.identity.Server(protocols...)
}

// secured returns the listener, under TLS where it is configured.
func (d *door) secured(protocols ...string) net.Listener {
	if c := d.tls(protocols...); c != nil {
		return tls.NewListener(d.listener, c)
	}
	return d.listener
}

func (d *door) close() {
	if d.listener != nil {
		d.listener.Close()
	}
	if d.identity != nil {
		d.identity.Close()
	}
}

// doors are the agent's open addresses.
type doors struct{ egress, api, admin *door }

func (d *doors) all() []*door { return []*door{d.egress, d.api, d.admin} }

func (d *doors) close() {
	for _, x := range d.all() {
		if x != nil {
			x.close()
		}
	}
}

func (d *doors) listeners() []net.Listener {
	return []net.Listener{d.egress.listener, d.api.listener, d.admin.listener}
}

// problems says what is wrong with the identities, by block.
func (d *doors) problems() map[string]string {
	wrong := make(map[string]string)
	for _, x := range d.all() {
		if x.identity != nil {
			if why := x.identity.Problem(); why != "" {
				wrong[x.field] = why
			}
		}
	}
	return wrong
}

func (a *Agent) open(c *config.Config) (*doors, error) {
	d := &doors{}
	for _, o := range []struct {
		into    **door
		field   string
		address string
		options config.ListenerOptions
	}{{&d.egress, "egress", c.Egress, c.Listeners.Egress}, {&d.api, "api", c.API, c.Listeners.API}, {&d.admin, "admin", c.Admin, c.Listeners.Admin}} {
		var err error
		if *o.into, err = a.openDoor(o.field, o.address, o.options); err != nil {
			d.close()
			return nil, err
		}
	}
	a.addresses = Addresses{displayAddress(d.egress.listener), displayAddress(d.api.listener), displayAddress(d.admin.listener)}
	return d, nil
}
