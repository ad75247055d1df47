package agent

import (
	"errors"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/discovery"
)

// registrar is where programs register endpoints through the API. It implements
// api.Registrar.
type registrar struct{ registry *registry }

// Register implements api.Registrar.
func (r registrar) Register(service string, e api.Registered, length time.Duration) (string, time.Duration, error) {
	endpoints, err := r.endpoints([]api.Registered{e})
	if err != nil {
		return "", 0, err
	}
	id, granted, err := r.registry.leases.Register(service, endpoints[0], length)
	if err == nil {
		r.registry.hurry(service, e.Address) // known already, it may have begun anew
	}
	return id, granted, refusal(err)
}

// Renew implements api.Registrar.
func (r registrar) Renew(id string) (time.Duration, error) {
	length, err := r.registry.leases.Renew(id)
	return length, refusal(err)
}

// Unregister implements api.Registrar.
func (r registrar) Unregister(id string) { r.registry.leases.Unregister(id) }

// Stream implements api.Registrar.
func (r registrar) Stream(service string) api.Registration {
	return registration{r, r.registry.leases.Stream(service)}
}

// registration is what one stream registers.
type registration struct {
	registrar
	held *discovery.Registration
}

// Set implements api.Registration.
func (r registration) Set(list []api.Registered) (int, error) {
	endpoints, err := r.endpoints(list)
	if err != nil {
		return 0, err
	}
	n, err := r.held.Set(endpoints)
	return n, refusal(err)
}

// Close implements api.Registration.
func (r registration) Close() { r.held.Close() }

// endpoints are what is registered as discovery knows it.
func (r registrar) endpoints(list []api.Registered) ([]discovery.Endpoint, error) {
	endpoints := make([]discovery.Endpoint, len(list))
	for i, e := range list {
		if err := config.CheckEndpoint(e.Address); err != nil {
			return nil, api.Refuse(api.BadEndpoint, err)
		}
		if r.registry.outside.guard.own.lead(e.Address) {
			return nil, api.Refuse(api.BadEndpoint, errLeadsBack)
		}
		endpoints[i] = discovery.Endpoint{Spec: e.Spec, Terminating: e.Terminating}
	}
	return endpoints, nil
}

// refusal is a refused registration as the API knows it.
func refusal(err error) error {
	switch {
	case errors.Is(err, discovery.ErrNoBook):
		return api.Refuse(api.NoRegistrations, err)
	case errors.Is(err, discovery.ErrFull):
		return api.Refuse(api.Full, err)
	case errors.Is(err, discovery.ErrNoLease):
		return api.Refuse(api.NoLease, err)
	}
	return err
}
