package balancer

import (
	"math"
	"testing"
	"time"
)

func TestLogarithmsAreGoodEnough(t *testing.T) {
	for took := time.Duration(1); took < 1000*time.Hour; took = took*5/4 + 1 {
		got := float64(log2(took)) / (1 << logBits)
		if exact := math.Log2(float64(took)); got > exact+1e-9 || got < exact-0.0861 {
			t.Errorf("log2 of %d is %.4f, want %.4f", took, got, exact)
		}
		if back := exp2(got); math.Abs(float64(back-took)) > float64(took)/10_000+1 {
			t.Errorf("%v came back as %v", took, back)
		}
	}
	for _, took := range []time.Duration{0, -time.Second} {
		if log := log2(took); log != 0 {
			t.Errorf("log2 of %v is %d", took, log)
		}
	}
}
