package discovery

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptr[T any](v T) *T { return &v }

// pod is an endpoint of a slice; the three conditions are "ready", "serving",
// "terminating", as they are written there.
func podEndpoint(address string, conditions map[string]bool) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{Addresses: []string{address}, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "pod-" + address}}
	for name, at := range map[string]**bool{"ready": &e.Conditions.Ready, "serving": &e.Conditions.Serving, "terminating": &e.Conditions.Terminating} {
		if v, ok := conditions[name]; ok {
			*at = ptr(v)
		}
	}
	return e
}

// slice is one as it comes from the API server.
func slice(t testing.TB, name string, endpoints ...discoveryv1.Endpoint) *endpointSlice {
	t.Helper()
	return received[*endpointSlice](t, &discoveryv1.EndpointSlice{
		TypeMeta:    sliceType,
		ObjectMeta:  metav1.ObjectMeta{Name: name, Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: "greeter"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr("grpc"), Port: ptr(int32(50051)), Protocol: ptr(corev1.ProtocolTCP)}},
		Endpoints:   endpoints,
	})
}

func even(string) uint32 { return 1 }

func TestConditionsOfAnEndpoint(t *testing.T) {
	for name, test := range map[string]struct {
		conditions map[string]bool
		want       string
	}{
		"none is ready":                 {nil, "calls"},
		"ready":                         {map[string]bool{"ready": true, "serving": true, "terminating": false}, "calls"},
		"not ready":                     {map[string]bool{"ready": false}, "nothing"},
		"not ready and not serving":     {map[string]bool{"ready": false, "serving": false, "terminating": false}, "nothing"},
		"terminating and serving still": {map[string]bool{"ready": false, "serving": true, "terminating": true}, "drains"},
		"terminating and done":          {map[string]bool{"ready": false, "serving": false, "terminating": true}, "nothing"},
		"terminating, said no more":     {map[string]bool{"ready": false, "terminating": true}, "nothing"},
		// publishNotReadyAddresses says ready of whatever is there; a pod that
		// goes still wants no new calls.
		"ready and terminating": {map[string]bool{"ready": true, "serving": true, "terminating": true}, "drains"},
	} {
		set, _ := endpointsOf([]any{slice(t, "s", podEndpoint("10.0.0.1", test.conditions))}, "", even)
		got := "nothing"
		if len(set) == 1 && set[0].Terminating {
			got = "drains"
		} else if len(set) == 1 {
			got = "calls"
		}
		if got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestPortsAreFoundByNameAndNumber(t *testing.T) {
	tcp := func(name string, port int32) discoveryv1.EndpointPort {
		return discoveryv1.EndpointPort{Name: ptr(name), Port: ptr(port), Protocol: ptr(corev1.ProtocolTCP)}
	}
	udp := discoveryv1.EndpointPort{Name: ptr("dns"), Port: ptr(int32(53)), Protocol: ptr(corev1.ProtocolUDP)}
	for name, test := range map[string]struct {
		ports               []discoveryv1.EndpointPort
		want, number, wrong string
	}{
		"the only one":        {[]discoveryv1.EndpointPort{tcp("", 80)}, "", "80", ""},
		"by name":             {[]discoveryv1.EndpointPort{tcp("http", 80), tcp("grpc", 90)}, "grpc", "90", ""},
		"by number":           {[]discoveryv1.EndpointPort{tcp("http", 80), tcp("grpc", 90)}, "80", "80", ""},
		"the only TCP one":    {[]discoveryv1.EndpointPort{udp, tcp("grpc", 90)}, "", "90", ""},
		"which of two":        {[]discoveryv1.EndpointPort{tcp("http", 80), tcp("grpc", 90)}, "", "", "the service has the ports http, grpc; write which one by port"},
		"none of that name":   {[]discoveryv1.EndpointPort{tcp("http", 80)}, "grpc", "", `the service has no port "grpc", but http`},
		"UDP alone":           {[]discoveryv1.EndpointPort{udp}, "", "", "the service has no TCP port"},
		"all ports, a number": {nil, "8080", "8080", ""},
	} {
		s := received[*endpointSlice](t, &discoveryv1.EndpointSlice{TypeMeta: sliceType, Ports: test.ports})
		if number, wrong := portOf(s.Ports, test.want); number != test.number || wrong != test.wrong {
			t.Errorf("%s: %q, %q", name, number, wrong)
		}
	}
}

func TestSlicesMakeOneSet(t *testing.T) {
	here := podEndpoint("10.0.0.1", nil)
	here.Zone = ptr("a")
	hinted := podEndpoint("10.0.0.2", nil)
	hinted.Zone, hinted.Hints = ptr("a"), &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "b"}}}
	both := podEndpoint("10.0.0.3", nil)
	both.Zone, both.Hints = ptr("c"), &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}, {Name: "b"}}}
	moving := podEndpoint("10.0.0.1", map[string]bool{"ready": false, "serving": true, "terminating": true})
	six := slice(t, "six", podEndpoint("fd00::1", nil))
	six.AddressType = string(discoveryv1.AddressTypeIPv6)

	set, note := endpointsOf([]any{slice(t, "old", moving), slice(t, "new", here, hinted, both), six}, "grpc", func(pod string) uint32 {
		if pod == "pod-10.0.0.2" {
			return 7
		}
		return 1
	})

	got := ""
	for _, e := range ordered(set) {
		got += fmt.Sprintf("%s w%d z%s %v\n", e.Address, e.Weight, e.Zone, e.Terminating)
	}
	want := "10.0.0.1:50051 w1 za false\n10.0.0.2:50051 w7 zb false\n10.0.0.3:50051 w1 zc false\n[fd00::1]:50051 w1 z false\n"
	if got != want || note != "" {
		t.Errorf("%s%s", got, note)
	}
}

func TestWhyThereAreNone(t *testing.T) {
	names := slice(t, "names")
	names.AddressType = string(discoveryv1.AddressTypeFQDN)
	for want, objects := range map[string][]any{
		"the service is not there, or has no endpoints":      nil,
		"1 endpoints and none is ready":                      {slice(t, "s", podEndpoint("10.0.0.1", map[string]bool{"ready": false}))},
		"EndpointSlice names has names instead of addresses": {names},
	} {
		if set, note := endpointsOf(objects, "", even); len(set) > 0 || note != want {
			t.Errorf("%v, %q; want %q", set, note, want)
		}
	}
}
