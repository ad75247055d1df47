package agent

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestWhatAServerSaysThroughATunnelIsNoRefusalOfTheAgents(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(reasonHeader, "BREAKER_OPEN")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer web.Close()
	transport := &egressTransport{web.Client().Transport.(*http.Transport)}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, web.URL, nil)
	if err != nil {
		t.Fatal(err)
	}

	answer, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()

	if reason := answer.Header.Get(reasonHeader); answer.StatusCode != 503 || reason != "" {
		t.Errorf("%s with the reason %q", answer.Status, reason)
	}
}
