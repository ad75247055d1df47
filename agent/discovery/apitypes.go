package discovery

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

// What Kubernetes calls the things that are watched.
const (
	serviceNameLabel = "kubernetes.io/service-name"
	addressTypeFQDN  = "FQDN"
	protocolTCP      = "TCP"
	targetPod        = "Pod"
)

var (
	slicesVersion = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
	podsVersion   = schema.GroupVersion{Version: "v1"}
)

// podMetadata asks the API server for the metadata of objects without the rest,
// which it supports since before it had EndpointSlices.
const podMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

// endpointSlice is the part of a discovery.k8s.io/v1 EndpointSlice that endpoints
// are made from. It is written here because k8s.io/api links every kind of the
// core API with it, which is some megabytes of the agent's binary. Values that
// the API leaves out are nil.
type endpointSlice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	AddressType string          `json:"addressType"`
	Endpoints   []sliceEndpoint `json:"endpoints"`
	Ports       []slicePort     `json:"ports"`
}

type sliceEndpoint struct {
	Addresses  []string        `json:"addresses"`
	Conditions sliceConditions `json:"conditions,omitempty"`
	TargetRef  *sliceTarget    `json:"targetRef,omitempty"`
	Zone       *string         `json:"zone,omitempty"`
	Hints      *sliceHints     `json:"hints,omitempty"`
}

type sliceConditions struct {
	Ready       *bool `json:"ready,omitempty"`
	Serving     *bool `json:"serving,omitempty"`
	Terminating *bool `json:"terminating,omitempty"`
}

// sliceTarget is the object that an endpoint stands for.
type sliceTarget struct {
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
}

type sliceHints struct {
	ForZones []sliceZone `json:"forZones,omitempty"`
}

type sliceZone struct {
	Name string `json:"name"`
}

type slicePort struct {
	Name     *string `json:"name,omitempty"`
	Protocol *string `json:"protocol,omitempty"`
	Port     *int32  `json:"port,omitempty"`
}

type endpointSliceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []endpointSlice `json:"items"`
}

// DeepCopyObject implements runtime.Object. The copy shares nothing that can be
// changed.
func (s *endpointSlice) DeepCopyObject() runtime.Object { return s.copied() }

// DeepCopyObject implements runtime.Object. The copy shares nothing that can be
// changed.
func (l *endpointSliceList) DeepCopyObject() runtime.Object {
	c := &endpointSliceList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy(), Items: slices.Clone(l.Items)}
	for i := range c.Items {
		c.Items[i] = *l.Items[i].copied()
	}
	return c
}

func (s *endpointSlice) copied() *endpointSlice {
	c := &endpointSlice{
		TypeMeta: s.TypeMeta, ObjectMeta: *s.ObjectMeta.DeepCopy(), AddressType: s.AddressType,
		Endpoints: slices.Clone(s.Endpoints), Ports: slices.Clone(s.Ports),
	}
	for i := range c.Endpoints {
		e := &c.Endpoints[i]
		e.Addresses = slices.Clone(e.Addresses)
		e.Conditions = sliceConditions{pointee(e.Conditions.Ready), pointee(e.Conditions.Serving), pointee(e.Conditions.Terminating)}
		e.TargetRef, e.Zone, e.Hints = pointee(e.TargetRef), pointee(e.Zone), pointee(e.Hints)
		if e.Hints != nil {
			e.Hints.ForZones = slices.Clone(e.Hints.ForZones)
		}
	}
	for i := range c.Ports {
		p := &c.Ports[i]
		p.Name, p.Protocol, p.Port = pointee(p.Name), pointee(p.Protocol), pointee(p.Port)
	}
	return c
}

// pointee returns a pointer to a copy; nil stays nil.
func pointee[T any](p *T) *T {
	if p == nil {
		return nil
	}
	return new(*p)
}

// kubernetesCodecs read what the API server sends: EndpointSlices and objects'
// metadata, and the events and errors of both.
func kubernetesCodecs() (runtime.NegotiatedSerializer, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypeWithName(slicesVersion.WithKind("EndpointSlice"), &endpointSlice{})
	scheme.AddKnownTypeWithName(slicesVersion.WithKind("EndpointSliceList"), &endpointSliceList{})
	metav1.AddToGroupVersion(scheme, slicesVersion)
	metav1.AddToGroupVersion(scheme, podsVersion)
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		return nil, err
	}
	return serializer.NewCodecFactory(scheme).WithoutConversion(), nil
}
