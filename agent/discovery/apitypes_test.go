package discovery

import (
	"encoding/json"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"pgregory.net/rapid"
)

// failer is what both testing.TB and *rapid.T are.
type failer interface {
	Helper()
	Fatal(...any)
}

var (
	sliceType = metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"}
	listType  = metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSliceList"}
)

// received is what the agent reads of an object that the API server wrote with
// k8s.io/api's types.
func received[T runtime.Object](t failer, sent runtime.Object) T {
	t.Helper()
	data, err := json.Marshal(sent)
	if err != nil {
		t.Fatal(err)
	}
	object, err := decode(t, data)
	if err != nil {
		t.Fatal(err)
	}
	got, ok := object.(T)
	if !ok {
		t.Fatal("read as", reflect.TypeOf(object))
	}
	return got
}

// decode reads what the API server wrote, as the REST client does.
func decode(t failer, data []byte) (runtime.Object, error) {
	t.Helper()
	codecs, err := kubernetesCodecs()
	if err != nil {
		t.Fatal(err)
	}
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), runtime.ContentTypeJSON)
	if !ok {
		t.Fatal("no JSON")
	}
	return runtime.Decode(codecs.DecoderToVersion(info.Serializer, slicesVersion), data)
}

// each maps a slice; nil stays nil.
func each[A, B any](of []A, to func(A) B) []B {
	if of == nil {
		return nil
	}
	made := make([]B, len(of))
	for i, v := range of {
		made[i] = to(v)
	}
	return made
}

// wanted is the part of an EndpointSlice that the agent's type has.
func wanted(s discoveryv1.EndpointSlice) endpointSlice {
	return endpointSlice{
		TypeMeta: s.TypeMeta, ObjectMeta: s.ObjectMeta, AddressType: string(s.AddressType),
		Endpoints: each(s.Endpoints, func(e discoveryv1.Endpoint) sliceEndpoint {
			to := sliceEndpoint{Addresses: e.Addresses, Conditions: sliceConditions(e.Conditions), Zone: e.Zone}
			if e.TargetRef != nil {
				to.TargetRef = &sliceTarget{Kind: e.TargetRef.Kind, Name: e.TargetRef.Name}
			}
			if e.Hints != nil {
				to.Hints = &sliceHints{each(e.Hints.ForZones, func(z discoveryv1.ForZone) sliceZone { return sliceZone{z.Name} })}
			}
			return to
		}),
		Ports: each(s.Ports, func(p discoveryv1.EndpointPort) slicePort {
			return slicePort{Name: p.Name, Protocol: (*string)(p.Protocol), Port: p.Port}
		}),
	}
}

// drawn makes a value of k8s.io/api with all that the agent reads and some that
// it doesn't.
func drawn(t *rapid.T) discoveryv1.EndpointSlice {
	word := rapid.StringMatching(`[a-zé"\\<]{1,6}`)
	words := rapid.SliceOfN(word, 1, 3)
	yes := rapid.Ptr(rapid.Bool(), true)
	s := discoveryv1.EndpointSlice{TypeMeta: sliceType, AddressType: discoveryv1.AddressType(word.Draw(t, "address type"))}
	s.Name, s.Namespace, s.ResourceVersion = word.Draw(t, "name"), word.Draw(t, "namespace"), word.Draw(t, "version")
	s.Annotations = rapid.MapOfN(word, word, 1, 3).Draw(t, "annotations")
	s.OwnerReferences = []metav1.OwnerReference{{Kind: word.Draw(t, "owner"), Controller: yes.Draw(t, "controller")}}
	for range rapid.IntRange(0, 3).Draw(t, "endpoints") {
		e := discoveryv1.Endpoint{
			Addresses: words.Draw(t, "addresses"), Zone: rapid.Ptr(word, true).Draw(t, "zone"), NodeName: rapid.Ptr(word, true).Draw(t, "node"), Hostname: rapid.Ptr(word, true).Draw(t, "host"),
			Conditions:         discoveryv1.EndpointConditions{Ready: yes.Draw(t, "ready"), Serving: yes.Draw(t, "serving"), Terminating: yes.Draw(t, "terminating")},
			DeprecatedTopology: map[string]string{"topology.kubernetes.io/zone": "elsewhere"},
		}
		if rapid.Bool().Draw(t, "target") {
			e.TargetRef = &corev1.ObjectReference{Kind: word.Draw(t, "kind"), Name: word.Draw(t, "pod"), Namespace: "shop", UID: "7"}
		}
		if rapid.Bool().Draw(t, "hints") {
			e.Hints = &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: "n"}}}
			for range rapid.IntRange(0, 2).Draw(t, "zones") {
				e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: word.Draw(t, "for zone")})
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{
			Name: rapid.Ptr(word, true).Draw(t, "port name"), AppProtocol: ptr("kubernetes.io/h2c"), Port: rapid.Ptr(rapid.Int32(), true).Draw(t, "port"),
			Protocol: rapid.Ptr(rapid.SampledFrom([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}), true).Draw(t, "protocol"),
		})
	}
	return s
}

func TestWhatTheAPIWritesIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := drawn(t)
		want := wanted(sent)
		want.TypeMeta = metav1.TypeMeta{} // client-go leaves out that of what it has read

		if got := received[*endpointSlice](t, &sent); !reflect.DeepEqual(*got, want) {
			t.Fatalf("%+v\nwant %+v", *got, want)
		}

		sent.TypeMeta = metav1.TypeMeta{} // as the API server writes it in a list
		list := &discoveryv1.EndpointSliceList{TypeMeta: listType, ListMeta: metav1.ListMeta{ResourceVersion: "12", Continue: "more"}, Items: []discoveryv1.EndpointSlice{sent, {}}}
		got := received[*endpointSliceList](t, list)
		if !reflect.DeepEqual(*got, endpointSliceList{ListMeta: list.ListMeta, Items: []endpointSlice{want, {}}}) {
			t.Fatalf("%+v", *got)
		}
	})
}

func TestACopySharesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := wanted(drawn(t))
		original := &endpointSliceList{TypeMeta: listType, ListMeta: metav1.ListMeta{ResourceVersion: "12"}, Items: []endpointSlice{want}}

		copied := original.DeepCopyObject()

		if !reflect.DeepEqual(copied, original) {
			t.Fatalf("%+v\nwant %+v", copied, original)
		}
		if shared := common(reflect.ValueOf(original), reflect.ValueOf(copied), ""); shared != "" {
			t.Fatal("shared:", shared)
		}
		if one := original.Items[0].DeepCopyObject(); !reflect.DeepEqual(one, &original.Items[0]) {
			t.Fatalf("%+v", one)
		}
	})
}

// common names the first pointer, slice or map that two equal values both have;
// empty: there is none.
func common(a, b reflect.Value, path string) string {
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if a.IsNil() || a.Kind() != reflect.Pointer && a.Len() == 0 {
			return ""
		}
		if a.Pointer() == b.Pointer() {
			return path
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		return common(a.Elem(), b.Elem(), path)
	case reflect.Slice:
		for i := range a.Len() {
			if at := common(a.Index(i), b.Index(i), path+"[]"); at != "" {
				return at
			}
		}
	case reflect.Struct:
		for i := range a.NumField() {
			if at := common(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name); at != "" {
				return at
			}
		}
	}
	return ""
}

func TestErrorsAndMetadataAreRead(t *testing.T) {
	status := received[*metav1.Status](t, &metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonExpired, Code: 410})
	if status.Reason != metav1.StatusReasonExpired || status.Code != 410 {
		t.Errorf("%+v", status)
	}

	pod := received[*metav1.PartialObjectMetadata](t, &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}, ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{WeightAnnotation: "5"}}})
	if pod.Name != "p" || pod.Annotations[WeightAnnotation] != "5" {
		t.Errorf("%+v", pod)
	}

	_, err := decode(t, []byte(`{"apiVersion": "discovery.k8s.io/v1beta1", "kind": "EndpointSlice"}`))
	if !runtime.IsNotRegisteredError(err) {
		t.Errorf("a version that it can't know: %v", err)
	}
}

// Whatever k8s.io/api reads, the agent reads, and as the same; and no such slice
// stops it.
func FuzzEndpointSlice(f *testing.F) {
	for _, seed := range []runtime.Object{
		&discoveryv1.EndpointSlice{TypeMeta: sliceType, AddressType: "IPv4", Ports: []discoveryv1.EndpointPort{{Name: ptr("grpc"), Port: ptr(int32(50051)), Protocol: ptr(corev1.ProtocolTCP)}},
			Endpoints: []discoveryv1.Endpoint{podEndpoint("10.0.0.1", map[string]bool{"ready": true, "terminating": false}), {Addresses: []string{"fd00::1"}, Hints: &discoveryv1.EndpointHints{ForZones: []discoveryv1.ForZone{{Name: "a"}}}}}},
		&discoveryv1.EndpointSliceList{TypeMeta: listType, Items: []discoveryv1.EndpointSlice{{AddressType: "FQDN"}}},
	} {
		data, err := json.Marshal(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "endpoints": [{"addresses": null, "Zone": "a", "zone": "b", "zone": null}, null], "ports": [{}]}`))
	scheme := runtime.NewScheme()
	if err := discoveryv1.AddToScheme(scheme); err != nil {
		f.Fatal(err)
	}
	theirs := serializer.NewCodecFactory(scheme).WithoutConversion()
	info, _ := runtime.SerializerInfoForMediaType(theirs.SupportedMediaTypes(), runtime.ContentTypeJSON)

	f.Fuzz(func(t *testing.T, data []byte) {
		object, err := runtime.Decode(theirs.DecoderToVersion(info.Serializer, slicesVersion), data)
		if err != nil {
			return
		}
		var sent []discoveryv1.EndpointSlice
		switch o := object.(type) {
		case *discoveryv1.EndpointSlice:
			sent = []discoveryv1.EndpointSlice{*o}
		case *discoveryv1.EndpointSliceList:
			sent = o.Items
		}
		ours, err := decode(t, data)
		if err != nil {
			t.Fatalf("k8s.io/api reads it: %v", err)
		}
		var got []endpointSlice
		switch o := ours.(type) {
		case *endpointSlice:
			got = []endpointSlice{*o}
		case *endpointSliceList:
			got = o.Items
		}
		if len(got) != len(sent) {
			t.Fatalf("%d slices, want %d", len(got), len(sent))
		}
		for i := range got {
			if want := wanted(sent[i]); !reflect.DeepEqual(got[i], want) {
				t.Fatalf("%+v\nwant %+v", got[i], want)
			}
			endpointsOf([]any{&got[i]}, "grpc", even)
		}
	})
}
