package config

import (
	"testing"
	"time"
)

func TestConnectionsAreInheritedFieldByField(t *testing.T) {
	c := parse(t, "egress: {limits: {upstream_connections: 16}}\ndefaults: {connections: {warm: 2, max_age: 1h}}"+oneService+"    policy: {connections: {max: 16, idle_timeout: 5m}}\n")

	if got, want := c.Services[0].Connections, (Connections{Warm: 2, Max: 16, MaxAge: time.Hour, IdleTimeout: 5 * time.Minute}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := parse(t, oneService).Services[0].Connections; got != (Connections{}) {
		t.Errorf("nothing is written: %+v", got)
	}
	if got := parse(t, oneService+"    policy: {connections: {warm: 8}}\n").Services[0].Connections.Warm; got != 8 {
		t.Errorf("as many as the limit allows: %d", got)
	}
}
