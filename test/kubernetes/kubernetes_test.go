package kubernetes

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/outrigger-rpc/outrigger/agent/discovery"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ptr[T any](v T) *T { return &v }

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 6000 {
		if condition() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited 60 s in vain: %s", what)
}

// permit lets the agent do what the documentation says it needs, and no more.
func (c *cluster) permit(resources ...rbacv1.PolicyRule) {
	c.t.Helper()
	ctx := context.Background()
	roles := c.admin.RbacV1()
	_ = roles.Roles("shop").Delete(ctx, "outrigger", metav1.DeleteOptions{})
	must[*rbacv1.Role](c.t)(roles.Roles("shop").Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "outrigger"}, Rules: resources}, metav1.CreateOptions{}))
	_, _ = roles.RoleBindings("shop").Create(ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "outrigger"},
		RoleRef:  rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: "outrigger"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: "rbac.authorization.k8s.io", Name: agentUser}}}, metav1.CreateOptions{})
}

var (
	slicesRule = rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}}
	podsRule   = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}}
)

// endpoint is one of a slice: "ready" or "terminating".
func endpoint(address, state string) discoveryv1.Endpoint {
	ready := state == "ready"
	return discoveryv1.Endpoint{Addresses: []string{address}, Zone: ptr("zone-a"), TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: "shop", Name: "greeter-" + strings.ReplaceAll(address, ".", "-")},
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: ptr(true), Terminating: ptr(!ready)}}
}

// put makes the slice what the service's endpoints are.
func (c *cluster) put(endpoints ...discoveryv1.Endpoint) {
	c.t.Helper()
	ctx, api := context.Background(), c.admin.DiscoveryV1().EndpointSlices("shop")
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "greeter-1", Labels: map[string]string{discoveryv1.LabelServiceName: "greeter"}},
		AddressType: discoveryv1.AddressTypeIPv4, Endpoints: endpoints,
		Ports: []discoveryv1.EndpointPort{{Name: ptr("grpc"), Port: ptr(int32(50051)), Protocol: ptr(corev1.ProtocolTCP)}, {Name: ptr("http"), Port: ptr(int32(8080)), Protocol: ptr(corev1.ProtocolTCP)}},
	}
	if _, err := api.Update(ctx, s, metav1.UpdateOptions{}); err != nil {
		must[*discoveryv1.EndpointSlice](c.t)(api.Create(ctx, s, metav1.CreateOptions{}))
	}
}

// seen is what a feed delivered last.
type seen struct {
	mu   sync.Mutex
	last discovery.Snapshot
}

func (s *seen) deliver(set discovery.Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = set
}

// are reports whether the last set is these addresses; a terminating one has a
// minus before it.
func (s *seen) are(addresses ...string) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		var got []string
		for _, e := range s.last.Endpoints {
			if e.Terminating {
				e.Address = "-" + e.Address
			}
			got = append(got, e.Address)
		}
		return s.last.Version > 0 && slices.Equal(got, addresses)
	}
}

func TestAgainstARealAPIServer(t *testing.T) {
	c := startCluster(t)
	ctx := context.Background()
	must[*corev1.Namespace](t)(c.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{}))
	c.put(endpoint("10.1.0.1", "ready"))
	watching := func(o discovery.KubernetesOptions) (*discovery.Feed, *seen) {
		o.Service, o.Port, o.Kubeconfig = "greeter", "grpc", c.path("agent.conf") // and its context's namespace
		s := &seen{}
		f := discovery.NewFeed(discovery.FeedOptions{Source: discovery.NewKubernetes(o), Deliver: s.deliver})
		f.Start()
		t.Cleanup(f.Stop)
		return f, s
	}

	// Without the role it says which right it lacks.
	f, s := watching(discovery.KubernetesOptions{})
	eventually(t, "what is forbidden", func() bool {
		return strings.Contains(f.Status().Problem, "forbidden") && strings.Contains(f.Status().Problem, "endpointslices")
	})
	c.permit(slicesRule)
	eventually(t, "the first endpoint, with the role", s.are("10.1.0.1:50051"))

	// Endpoints come, drain and go.
	c.put(endpoint("10.1.0.1", "ready"), endpoint("10.1.0.2", "ready"))
	eventually(t, "one more", s.are("10.1.0.1:50051", "10.1.0.2:50051"))
	c.put(endpoint("10.1.0.1", "terminating"), endpoint("10.1.0.2", "ready"))
	eventually(t, "one drains", s.are("-10.1.0.1:50051", "10.1.0.2:50051"))
	c.put(endpoint("10.1.0.2", "ready"))
	eventually(t, "it is gone", s.are("10.1.0.2:50051"))

	// Weights want the pods too.
	w, weighed := watching(discovery.KubernetesOptions{Weights: true})
	eventually(t, "that pods are forbidden", func() bool {
		return strings.Contains(w.Status().Problem, "forbidden") && strings.Contains(w.Status().Problem, "pods")
	})
	c.permit(slicesRule, podsRule)
	must[*corev1.Pod](t)(c.admin.CoreV1().Pods("shop").Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "greeter-10-1-0-2", Annotations: map[string]string{discovery.WeightAnnotation: "7"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "greeter", Image: "greeter"}}},
	}, metav1.CreateOptions{}))
	eventually(t, "the pod's weight", func() bool {
		weighed.mu.Lock()
		defer weighed.mu.Unlock()
		return len(weighed.last.Endpoints) == 1 && weighed.last.Endpoints[0].Weight == 7 && weighed.last.Endpoints[0].Zone == "zone-a"
	})

	// The API server goes: the set stays and is stale. It comes back with what it
	// had, and then changes.
	c.stop()
	eventually(t, "the set is stale", func() bool { return f.Status().Stale })
	if !s.are("10.1.0.2:50051")() {
		t.Errorf("stale: %+v", s.last)
	}
	version := f.Status().Version
	c.start()
	eventually(t, "it is well again", func() bool { return !f.Status().Stale && f.Status().Problem == "" })
	if f.Status().Version != version || !s.are("10.1.0.2:50051")() {
		t.Errorf("the outage changed the set: %+v", s.last)
	}
	c.put(endpoint("10.1.0.2", "ready"), endpoint("10.1.0.3", "ready"))
	eventually(t, "a change after the outage", s.are("10.1.0.2:50051", "10.1.0.3:50051"))
}
