package telemetry

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

const (
	// maxScrapes bounds how many scrapes are answered at a time; each holds
	// all series in memory.
	maxScrapes = 4
	// scrapeTimeout bounds one scrape.
	scrapeTimeout = 10 * time.Second
)

// prometheusHandler serves the metrics. The registry and the exporter are made
// by the first scrape: an agent that nobody scrapes pays nothing for them.
type prometheusHandler struct {
	producer sdkmetric.Producer
	resource *resource.Resource

	once     sync.Once
	handler  http.Handler
	err      error
	provider *sdkmetric.MeterProvider
}

// ServeHTTP answers a scrape.
func (h *prometheusHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(h.build)
	if h.err != nil {
		http.Error(w, "metrics can't be served: "+h.err.Error(), http.StatusInternalServerError)
		return
	}
	h.handler.ServeHTTP(w, r)
}

func (h *prometheusHandler) build() {
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(
		exporter.WithRegisterer(registry),
		exporter.WithProducer(h.producer),
		// There is one scope; three more labels on every series would say
		// nothing.
		exporter.WithoutScopeInfo(),
	)
	if err != nil {
		h.err = err
		return
	}
	h.provider = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithResource(h.resource))
	h.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             scrapeTimeout,
	})
}

// Close stops the provider, if a scrape made one.
func (h *prometheusHandler) Close() error {
	h.once.Do(func() { h.err = http.ErrServerClosed })
	if h.provider == nil {
		return nil
	}
	return h.provider.Shutdown(context.Background())
}
