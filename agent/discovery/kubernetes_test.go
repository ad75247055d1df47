package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	fake "k8s.io/client-go/tools/cache/testing"
)

// apiServer is client-go's fake of one kind of objects, which the test can take
// away.
type apiServer struct {
	*fake.FakeControllerSource
	down    atomic.Bool
	watches atomic.Int32
}

var errDown = errors.New("connection refused")

func (s *apiServer) List(o metav1.ListOptions) (runtime.Object, error) {
	if s.down.Load() {
		return nil, errDown
	}
	return s.FakeControllerSource.List(o)
}

func (s *apiServer) Watch(o metav1.ListOptions) (watch.Interface, error) {
	if s.down.Load() {
		return nil, errDown
	}
	s.watches.Add(1)
	return s.FakeControllerSource.Watch(o)
}

// IsWatchListSemanticsUnSupported says that the fake knows lists and watches
// alone.
func (s *apiServer) IsWatchListSemanticsUnSupported() bool { return true }

// stop takes the API server away, with the watches that stand.
func (s *apiServer) stop() {
	s.down.Store(true)
	s.ResetWatch()
}

func newAPIServer(t *testing.T) *apiServer {
	s := &apiServer{FakeControllerSource: fake.NewFakeControllerSource()}
	t.Cleanup(s.Shutdown)
	return s
}

// watched runs a feed of the fakes.
func watched(t *testing.T, endpoints, pods *apiServer, o KubernetesOptions) (*Feed, *delivered) {
	t.Helper()
	o.Service = "greeter"
	got := &delivered{}
	f := NewFeed(FeedOptions{
		Source: &kubernetes{o, func(KubernetesOptions) (connection, error) {
			c := connection{namespace: "shop", slices: endpoints}
			if pods != nil {
				c.pods = pods
			}
			return c, nil
		}},
		Deliver: got.deliver, Coalesce: ms, Hold: 50 * ms,
	})
	f.Start()
	t.Cleanup(f.Stop)
	return f, got
}

var _ cache.ListerWatcher = (*apiServer)(nil)

func TestEndpointSlicesAreFollowed(t *testing.T) {
	api := newAPIServer(t)
	api.Add(slice(t, "s", podEndpoint("10.0.0.1", nil)))
	f, got := watched(t, api, nil, KubernetesOptions{Namespace: "shop", Port: "grpc"})
	eventually(t, "the first", got.have("10.0.0.1:50051"))

	api.Modify(slice(t, "s", podEndpoint("10.0.0.1", nil), podEndpoint("10.0.0.2", nil)))
	api.Add(slice(t, "s2", podEndpoint("10.0.0.3", nil)))
	eventually(t, "three in two slices", got.have("10.0.0.1:50051", "10.0.0.2:50051", "10.0.0.3:50051"))

	api.Delete(slice(t, "s2"))
	eventually(t, "a slice is gone", got.have("10.0.0.1:50051", "10.0.0.2:50051"))

	api.Modify(slice(t, "s", podEndpoint("10.0.0.1", map[string]bool{"ready": false, "serving": true, "terminating": true}), podEndpoint("10.0.0.2", nil)))
	eventually(t, "one drains", func() bool {
		sets := got.all()
		last := sets[len(sets)-1].Endpoints
		return len(last) == 2 && last[0].Terminating && !last[1].Terminating
	})
	if s := f.Status(); s.Source != "kubernetes shop/greeter:grpc" || s.Problem != "" || s.Stale {
		t.Errorf("%+v", s)
	}
}

func TestAServiceThatIsNotThere(t *testing.T) {
	f, _ := watched(t, newAPIServer(t), nil, KubernetesOptions{})

	eventually(t, "an answer", func() bool { return f.Status().Version == 1 })
	if s := f.Status(); s.Stale || !strings.Contains(s.Problem, "not there") {
		t.Errorf("%+v", s)
	}
}

func TestAnAPIServerThatIsGoneLeavesTheLastSet(t *testing.T) {
	api := newAPIServer(t)
	api.Add(slice(t, "s", podEndpoint("10.0.0.1", nil)))
	f, got := watched(t, api, nil, KubernetesOptions{})
	eventually(t, "the first", got.have("10.0.0.1:50051"))

	api.stop()
	eventually(t, "the set is stale", func() bool { return f.Status().Stale })
	if s := f.Status(); s.Problem != "EndpointSlices can't be watched: connection refused" || !got.have("10.0.0.1:50051")() {
		t.Errorf("%+v, %v", s, got.last())
	}

	api.down.Store(false) // with what it had: no event comes
	eventually(t, "recovery", func() bool { s := f.Status(); return !s.Stale && s.Problem == "" })
	api.Modify(slice(t, "s", podEndpoint("10.0.0.9", nil)))
	eventually(t, "a change", got.have("10.0.0.9:50051"))
}

func TestWeightsComeFromPods(t *testing.T) {
	api, pods := newAPIServer(t), newAPIServer(t)
	pod := func(weight string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "pod-10.0.0.1", Namespace: "shop", Annotations: map[string]string{WeightAnnotation: weight, "more": "words"}}}
	}
	api.Add(slice(t, "s", podEndpoint("10.0.0.1", nil)))
	pods.Add(pod("5"))
	_, got := watched(t, api, pods, KubernetesOptions{Weights: true})
	weight := func(want uint32) func() bool {
		return func() bool {
			sets := got.all()
			return len(sets) > 0 && len(sets[len(sets)-1].Endpoints) == 1 && sets[len(sets)-1].Endpoints[0].Weight == want
		}
	}
	eventually(t, "the annotation's weight", weight(5))
	pods.Modify(pod("9"))
	eventually(t, "another one", weight(9))
	pods.Modify(pod("much"))
	eventually(t, "1 for what is no weight", weight(1))
}

func TestOutsideOfAClusterItSaysSo(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	err := NewKubernetes(KubernetesOptions{Service: "greeter"}).Run(context.Background(), NewFeed(FeedOptions{}))

	if err == nil || !strings.Contains(err.Error(), "no kubeconfig is written") {
		t.Fatal(err)
	}
	err = NewKubernetes(KubernetesOptions{Service: "greeter", Kubeconfig: "/nowhere/k.conf"}).Run(context.Background(), NewFeed(FeedOptions{}))
	if err == nil || !strings.Contains(err.Error(), "/nowhere/k.conf") {
		t.Fatal(err)
	}
}

// One API server over HTTP: what is asked of it, and that its answers, written
// with k8s.io/api's types, make the set.
func TestWhatIsAskedOfTheAPIServer(t *testing.T) {
	type request struct{ accept, selector string }
	asked := make(chan map[string]request, 2)
	// event is one of a stream of the first objects; the last of it says that
	// those are all.
	event := func(kind watch.EventType, object any) []byte {
		data, err := json.Marshal(map[string]any{"type": kind, "object": object})
		if err != nil {
			t.Error(err)
		}
		return append(data, '\n')
	}
	all := map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	podType := metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}
	stream := map[string][]byte{
		"/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices": slices.Concat(
			event(watch.Added, &discoveryv1.EndpointSlice{TypeMeta: sliceType, ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "shop", ResourceVersion: "3"}, AddressType: discoveryv1.AddressTypeIPv4,
				Endpoints: []discoveryv1.Endpoint{podEndpoint("10.0.0.1", nil)}, Ports: []discoveryv1.EndpointPort{{Port: ptr(int32(50051))}}}),
			event(watch.Bookmark, &discoveryv1.EndpointSlice{TypeMeta: sliceType, ObjectMeta: metav1.ObjectMeta{ResourceVersion: "4", Annotations: all}})),
		"/api/v1/namespaces/shop/pods": slices.Concat(
			event(watch.Added, &metav1.PartialObjectMetadata{TypeMeta: podType, ObjectMeta: metav1.ObjectMeta{Name: "pod-10.0.0.1", Namespace: "shop", ResourceVersion: "3", Annotations: map[string]string{WeightAnnotation: "5"}}}),
			event(watch.Bookmark, &metav1.PartialObjectMetadata{TypeMeta: podType, ObjectMeta: metav1.ObjectMeta{ResourceVersion: "4", Annotations: all}})),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		events, ok := stream[r.URL.Path]
		if !ok || r.URL.Query().Get("watch") != "true" || r.URL.Query().Get("sendInitialEvents") != "true" {
			t.Errorf("%s %s", r.Method, r.URL)
			http.NotFound(w, r)
			return
		}
		select {
		case asked <- map[string]request{r.URL.Path: {r.Header.Get("Accept"), r.URL.Query().Get("labelSelector")}}:
		default: // a watch that begins anew
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(events)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	kubeconfig := filepath.Join(t.TempDir(), "k.conf")
	written := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\ncontexts: [{name: c, context: {cluster: c, namespace: shop}}]\ncurrent-context: c\n", server.URL)
	if err := os.WriteFile(kubeconfig, []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	got := &delivered{}
	f := NewFeed(FeedOptions{Source: NewKubernetes(KubernetesOptions{Service: "greeter", Weights: true, Kubeconfig: kubeconfig}), Deliver: got.deliver, Coalesce: ms})

	f.Start()
	t.Cleanup(f.Stop)

	eventually(t, "the endpoint with its pod's weight", func() bool {
		sets := got.all()
		return len(sets) > 0 && len(sets[0].Endpoints) == 1 && sets[0].Endpoints[0].Address == "10.0.0.1:50051" && sets[0].Endpoints[0].Weight == 5
	})
	requests := <-asked
	maps.Copy(requests, <-asked)
	want := map[string]request{
		"/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices": {"application/json", "kubernetes.io/service-name=greeter"},
		"/api/v1/namespaces/shop/pods":                             {"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", ""},
	}
	if !maps.Equal(requests, want) {
		t.Errorf("%v", requests)
	}
}
