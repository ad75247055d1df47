package discovery

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// WeightAnnotation of a pod is the weight of its endpoints, 1 to 1000000.
const WeightAnnotation = "outrigger.dev/weight"

const (
	namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	// together is how long events are gathered before the set is made anew: a
	// rollout of many pods is many events.
	together = 50 * time.Millisecond
)

// KubernetesOptions name a Kubernetes service.
type KubernetesOptions struct {
	// Namespace of the service. Empty: that of the agent's pod, or of the
	// kubeconfig's context.
	Namespace string
	// Service is its name.
	Service string
	// Port is the name or the number of its port. Empty: its only one.
	Port string
	// Weights: pods' WeightAnnotation counts. The metadata of the
	// namespace's pods is watched too.
	Weights bool
	// Kubeconfig is a file that says how to reach the API server. Empty: the
	// pod's service account.
	Kubeconfig string
}

// kubernetes watches a service's EndpointSlices. It implements Source.
type kubernetes struct {
	options KubernetesOptions
	connect func(KubernetesOptions) (connection, error)
}

// connection is a way to the API server.
type connection struct {
	namespace string
	slices    cache.ListerWatcher
	pods      cache.ListerWatcher // nil: not wanted
}

// NewKubernetes returns a source of a Kubernetes service's endpoints, from its
// EndpointSlices (discovery.k8s.io/v1). Those that are ready take calls; those
// that are terminating and serve still finish what they have; others are no
// endpoints. An endpoint's zone is the one that its hint names, where there is
// one, else its own. Nothing of it costs anything before Run.
//
// The service account needs, in the service's namespace and no more than this:
//
//	apiVersion: rbac.authorization.k8s.io/v1
//	kind: Role
//	rules:
//	  - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
//	  - {apiGroups: [""], resources: [pods], verbs: [list, watch]} # only with weights
func NewKubernetes(o KubernetesOptions) Source {
	return &kubernetes{options: o, connect: connectKubernetes}
}

// Name implements Source.
func (k *kubernetes) Name() string {
	name := k.options.Service
	if k.options.Namespace != "" {
		name = k.options.Namespace + "/" + name
	}
	if k.options.Port != "" {
		name += ":" + k.options.Port
	}
	return "kubernetes " + name
}

// Refresh implements Source. The API server tells of changes by itself.
func (k *kubernetes) Refresh() {}

// Run implements Source.
func (k *kubernetes) Run(ctx context.Context, sink Sink) error {
	c, err := k.connect(k.options)
	if err != nil {
		return err
	}
	w := &watching{sink: sink, changed: make(chan struct{}, 1), failing: make(map[string]error)}
	// What client-go has to say, the sink is told.
	ctx = klog.NewContext(ctx, logr.Discard())
	slices, err := w.informer("EndpointSlices", c.slices, &endpointSlice{})
	if err != nil {
		return err
	}
	informers := []cache.SharedInformer{slices}
	var pods cache.SharedInformer
	if c.pods != nil {
		if pods, err = w.informer("pods", c.pods, &metav1.PartialObjectMetadata{}); err != nil {
			return err
		}
		informers = append(informers, pods)
	}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	for _, i := range informers {
		running.Go(func() { i.RunWithContext(ctx) })
	}
	pause := time.NewTimer(together)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.changed:
		}
		pause.Reset(together)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		if !slices.HasSynced() || pods != nil && !pods.HasSynced() {
			w.wakeLater()
			continue
		}
		if err := w.failed(); err != nil {
			sink.Fail(err)
			continue
		}
		weights := func(string) uint32 { return 1 }
		if pods != nil {
			weights = func(pod string) uint32 { return weightOf(pods.GetStore(), c.namespace, pod) }
		}
		sink.Publish(endpointsOf(slices.GetStore().List(), k.options.Port, weights))
	}
}

// connectKubernetes finds the way to the API server.
func connectKubernetes(o KubernetesOptions) (connection, error) {
	config, namespace, err := kubernetesConfig(o.Kubeconfig)
	if err != nil {
		return connection{}, err
	}
	if o.Namespace != "" {
		namespace = o.Namespace
	}
	codecs, err := kubernetesCodecs()
	if err != nil {
		return connection{}, err
	}
	client := func(gv schema.GroupVersion, path, accept string) (*rest.RESTClient, error) {
		c := rest.CopyConfig(config)
		c.GroupVersion, c.APIPath, c.NegotiatedSerializer, c.AcceptContentTypes = &gv, path, codecs, accept
		c.UserAgent = "outrigger"
		return rest.RESTClientFor(c)
	}
	slices, err := client(slicesVersion, "/apis", runtime.ContentTypeJSON)
	if err != nil {
		return connection{}, err
	}
	of := labels.Set{serviceNameLabel: o.Service}.String()
	c := connection{namespace: namespace, slices: cache.NewFilteredListWatchFromClient(slices, "endpointslices", namespace, func(l *metav1.ListOptions) { l.LabelSelector = of })}
	if o.Weights {
		pods, err := client(podsVersion, "/api", podMetadata)
		if err != nil {
			return connection{}, err
		}
		c.pods = cache.NewFilteredListWatchFromClient(pods, "pods", namespace, func(*metav1.ListOptions) {})
	}
	return c, nil
}

// kubernetesConfig reads a kubeconfig, or the pod's service account.
func kubernetesConfig(path string) (config *rest.Config, namespace string, err error) {
	if path != "" {
		file := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}, &clientcmd.ConfigOverrides{})
		if config, err = file.ClientConfig(); err == nil {
			namespace, _, err = file.Namespace()
		}
		return config, namespace, err
	}
	if config, err = rest.InClusterConfig(); err != nil {
		return nil, "", fmt.Errorf("no service account of a pod, and no kubeconfig is written: %w", err)
	}
	data, err := os.ReadFile(namespaceFile)
	return config, strings.TrimSpace(string(data)), err
}

// watching tells the sink how its watches are.
type watching struct {
	sink    Sink
	changed chan struct{} // holds one: make the set anew

	mu      sync.Mutex
	failing map[string]error // by what is watched
}

func (w *watching) wake() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// wakeLater looks again whether the first lists are there.
func (w *watching) wakeLater() { time.AfterFunc(together, w.wake) }

// failed returns why one of the watches doesn't stand; nil: all do.
func (w *watching) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, err := range w.failing {
		return err
	}
	return nil
}

// note hears how a list or a watch began.
func (w *watching) note(what string, err error) {
	w.mu.Lock()
	before := w.failing[what]
	if err != nil {
		err = fmt.Errorf("%s can't be watched: %w", what, err)
		w.failing[what] = err
	} else {
		delete(w.failing, what)
	}
	w.mu.Unlock()
	switch {
	case err != nil:
		w.sink.Fail(err)
	case before != nil:
		w.wake() // the set may be what it was: no event comes, and it counts as stale
	}
}

// informer watches one kind of objects and keeps of them what is needed.
func (w *watching) informer(what string, source cache.ListerWatcher, object runtime.Object) (cache.SharedInformer, error) {
	api := cache.ToListerWatcherWithContext(source)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := api.ListWithContext(ctx, o)
			w.note(what, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			events, err := api.WatchWithContext(ctx, o)
			w.note(what, err)
			return events, err
		},
	}
	i := cache.NewSharedInformer(cache.ToListWatcherWithWatchListSemantics(lw, source), object, 0)
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { w.wake() }, UpdateFunc: func(any, any) { w.wake() }, DeleteFunc: func(any) { w.wake() },
	})
	w.wake() // an empty list brings no event
	return i, errors.Join(err, i.SetTransform(spare), i.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}))
}

// spare drops what no endpoint is made from: a namespace's pods are many.
func spare(object any) (any, error) {
	switch o := object.(type) {
	case *metav1.PartialObjectMetadata:
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, ResourceVersion: o.ResourceVersion, Annotations: map[string]string{WeightAnnotation: o.Annotations[WeightAnnotation]}}}, nil
	case *endpointSlice:
		o.ManagedFields = nil
	}
	return object, nil
}
