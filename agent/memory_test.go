package agent

import (
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
)

func TestALargeHeapGathersLessGarbage(t *testing.T) {
	for _, test := range []struct {
		live    uint64
		percent int
	}{
		{0, 200},
		{4 << 20, 200},
		{10 << 20, 200},
		{16 << 20, 125},
		{20 << 20, 100},
		{1 << 30, 100},
	} {
		if got := gcPercentOf(test.live); got != test.percent {
			t.Errorf("%d bytes live: %d %%, want %d", test.live, got, test.percent)
		}
	}
}

func TestEachCollectionPacesTheNext(t *testing.T) {
	tuneMemory()
	heap := make([]byte, 64<<20)
	percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	for end := time.Now().Add(10 * time.Second); percent[0].Value.Kind() == metrics.KindBad || percent[0].Value.Uint64() != gcLeast; {
		if time.Now().After(end) {
			t.Fatalf("the collector is at %d %% over a heap of 64 MiB; want %d", percent[0].Value.Uint64(), gcLeast)
		}
		runtime.GC()
		time.Sleep(time.Millisecond) // finalizers run beside
		metrics.Read(percent)
	}
	runtime.KeepAlive(heap)
}

func TestParseMemoryLimit(t *testing.T) {
	for _, test := range []struct {
		content string
		limit   int64
		ok      bool
	}{
		{"134217728\n", 134217728, true},
		{"max\n", 0, false},
		{"9223372036854771712\n", 0, false}, // version 1 without a limit
		{"0\n", 0, false},
		{"", 0, false},
		{"many", 0, false},
	} {
		if limit, ok := parseMemoryLimit([]byte(test.content)); limit != test.limit || ok != test.ok {
			t.Errorf("%q: got %d, %v; want %d, %v", test.content, limit, ok, test.limit, test.ok)
		}
	}
}
