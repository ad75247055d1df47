package discovery

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// endpointsOf makes the set out of a service's slices. note says why there are
// none. An address that is in two slices, as while one is being replaced, counts
// as the fitter of the two.
func endpointsOf(objects []any, port string, weight func(pod string) uint32) (set []Endpoint, note string) {
	wrong := make(map[string]bool)
	waiting := 0
	for _, object := range objects {
		s, ok := object.(*endpointSlice)
		if !ok {
			continue
		}
		if s.AddressType == addressTypeFQDN {
			wrong["EndpointSlice "+s.Name+" has names instead of addresses"] = true
			continue
		}
		number, why := portOf(s.Ports, port)
		if why != "" {
			wrong[why] = true
			continue
		}
		for _, e := range s.Endpoints {
			ready, terminating := conditionsOf(e.Conditions)
			if !ready && !terminating {
				waiting++
				continue
			}
			spec := balancer.Spec{Weight: 1, Zone: zoneOf(e)}
			if e.TargetRef != nil && e.TargetRef.Kind == targetPod {
				spec.Weight = weight(e.TargetRef.Name)
			}
			for _, address := range e.Addresses {
				spec.Address = net.JoinHostPort(address, number)
				set = append(set, Endpoint{spec, terminating})
			}
		}
	}
	slices.SortFunc(set, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), fitness(a)-fitness(b))
	})
	switch {
	case len(wrong) > 0:
		note = strings.Join(slices.Sorted(maps.Keys(wrong)), "; ")
	case len(set) == 0 && waiting > 0:
		note = fmt.Sprintf("%d endpoints and none is ready", waiting)
	case len(set) == 0:
		note = "the service is not there, or has no endpoints"
	}
	return set, note
}

func fitness(e Endpoint) int {
	if e.Terminating {
		return 1
	}
	return 0
}

// conditionsOf says whether an endpoint takes calls, and whether it finishes
// those that it has. Conditions that are not written mean ready, and serving as
// long as it is ready.
func conditionsOf(c sliceConditions) (ready, terminating bool) {
	ready = c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	if c.Terminating != nil && *c.Terminating {
		return false, serving
	}
	return ready, false
}

// zoneOf is the zone whose callers an endpoint is for: the hint's, where the
// control plane names one, else where it runs.
func zoneOf(e sliceEndpoint) string {
	if e.Hints != nil && len(e.Hints.ForZones) == 1 {
		return e.Hints.ForZones[0].Name
	}
	if e.Zone != nil {
		return *e.Zone
	}
	return ""
}

// portOf finds the port that is wanted by name or number; empty: the only one.
func portOf(ports []slicePort, want string) (number, wrong string) {
	var known []string
	for _, p := range ports {
		if p.Port == nil || p.Protocol != nil && *p.Protocol != protocolTCP {
			continue
		}
		number := strconv.Itoa(int(*p.Port))
		name := number
		if p.Name != nil && *p.Name != "" {
			name = *p.Name
		}
		if want != "" && (want == name || want == number) {
			return number, ""
		}
		known = append(known, name)
		if want == "" && len(ports) == 1 {
			return number, ""
		}
	}
	if _, err := strconv.ParseUint(want, 10, 16); err == nil && len(ports) == 0 {
		return want, "" // a slice without ports stands for all of them
	}
	switch {
	case len(known) == 0:
		return "", "the service has no TCP port"
	case want == "" && len(known) == 1:
		return portOf(ports, known[0])
	case want == "":
		return "", "the service has the ports " + strings.Join(known, ", ") + "; write which one by port"
	}
	return "", fmt.Sprintf("the service has no port %q, but %s", want, strings.Join(known, ", "))
}

// weightOf reads a pod's annotation. One that is no weight, or that is not there
// yet, counts as 1.
func weightOf(pods cache.Store, namespace, name string) uint32 {
	const most = 1000000
	object, ok, err := pods.GetByKey(namespace + "/" + name)
	if pod, is := object.(*metav1.PartialObjectMetadata); err == nil && ok && is {
		if n, err := strconv.ParseUint(pod.Annotations[WeightAnnotation], 10, 32); err == nil && n >= 1 && n <= most {
			return uint32(n)
		}
	}
	return 1
}
