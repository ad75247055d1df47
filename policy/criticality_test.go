package policy

import "testing"

func TestCriticalitiesByTheirNames(t *testing.T) {
	for c, name := range map[Criticality]string{1: "CRITICAL_PLUS", 0: "CRITICAL", -1: "SHEDDABLE_PLUS", -2: "SHEDDABLE"} {
		if got := c.String(); got != name {
			t.Errorf("%d: %s, want %s", c, got, name)
		}
		if got, ok := ParseCriticality(name); !ok || got != c {
			t.Errorf("%s: %d, %v, want %d", name, got, ok, c)
		}
	}
}

func TestWhatIsNoCriticality(t *testing.T) {
	for _, name := range []string{"", "critical", "SHEDDABLE ", "UNKNOWN"} {
		if got, ok := ParseCriticality(name); ok || got != Critical {
			t.Errorf("%q: %v, %v, want CRITICAL, false", name, got, ok)
		}
	}
}

func TestCriticalitiesOutOfRangeCountAsTheNearest(t *testing.T) {
	for c, want := range map[Criticality]string{-128: "SHEDDABLE", -3: "SHEDDABLE", 2: "CRITICAL_PLUS", 127: "CRITICAL_PLUS"} {
		if got := c.String(); got != want {
			t.Errorf("%d: %s, want %s", c, got, want)
		}
	}
}
