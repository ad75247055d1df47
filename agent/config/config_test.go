package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestAServiceIsFoundByName(t *testing.T) {
	c := parse(t, oneService)

	if s := c.Service("greeter"); s == nil || s != &c.Services[0] {
		t.Errorf("got %+v", s)
	}
	if s := c.Service("Greeter"); s != nil {
		t.Errorf("got %+v, want none", s)
	}
}

func TestSettingsAreWhatALiveServiceIsMadeOf(t *testing.T) {
	c := parse(t, oneService+"    policy: {timeout: 3s}\n    methods: [{method: /a.B/Slow, policy: {timeout: 30s}}]\n")

	s := policy.NewService("greeter", c.Service("greeter").Settings(), nil)

	if got := s.Method("/a.B/Fast").Policy().Timeout; got != 3*time.Second {
		t.Errorf("got %v", got)
	}
	if got := s.Method("/a.B/Slow").Policy().Timeout; got != 30*time.Second {
		t.Errorf("got %v", got)
	}
}
