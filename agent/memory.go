package agent

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"sync"
)

const (
	// gcPercent lets the heap triple between collections. The live heap is a
	// few megabytes, so that costs little memory and saves most of the
	// collections that Go's own 100 would run under load.
	gcPercent = 200
	// gcGarbage is how much garbage that may become, in bytes: a larger heap
	// grows by its own size at most, as Go's do.
	gcGarbage = 20 << 20
	gcLeast   = 100
	// gcStep is how much the percentage has to change to be set: that stops
	// the program for a moment.
	gcStep = 10
	// limitShare is how much of a container's memory the heap may take before
	// collections come more often; the rest is for stacks, code and sockets.
	limitShare = 0.9
)

// tuneMemory sets the garbage collector up for a small, busy heap. What the
// environment says (GOGC, GOMEMLIMIT) stands.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		pace.Do(func() {
			debug.SetGCPercent(gcPercent)
			runtime.SetFinalizer(&collection{percent: gcPercent}, (*collection).ended)
		})
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit, ok := containerMemory(); ok {
			debug.SetMemoryLimit(int64(float64(limit) * limitShare))
		}
	}
}

// pace is done once: the collector is the process's.
var pace sync.Once

// collection is garbage that each collection finds. It is too large for a block
// that it would share: there, what lives beside it would keep it.
type collection struct {
	percent int
	_       [2]uint64
}

// ended sets the percentage for the next one.
func (c *collection) ended() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if p := gcPercentOf(live[0].Value.Uint64()); p-c.percent >= gcStep || c.percent-p >= gcStep {
		c.percent = p
		debug.SetGCPercent(p)
	}
	runtime.SetFinalizer(c, (*collection).ended)
}

// gcPercentOf returns how much garbage may gather beside a live heap, in percent of
// it.
func gcPercentOf(live uint64) int {
	return int(min(gcPercent, max(gcLeast, gcGarbage*100/max(live, 1))))
}

// containerMemory returns the memory limit of the container that the agent is
// in; ok is false where there is none.
func containerMemory() (limit int64, ok bool) {
	for _, path := range []string{
		"/sys/fs/cgroup/memory.max",                   // cgroup v2
		"/sys/fs/cgroup/memory/memory.limit_in_bytes", // v1
	} {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		return parseMemoryLimit(content)
	}
	return 0, false
}

// parseMemoryLimit reads a cgroup's limit: bytes, or "max". Version 1 writes
// "no limit" as a number near the largest there is.
func parseMemoryLimit(content []byte) (limit int64, ok bool) {
	limit, err := strconv.ParseInt(string(bytes.TrimSpace(content)), 10, 64)
	if err != nil || limit <= 0 || limit > math.MaxInt64/2 {
		return 0, false
	}
	return limit, true
}

// releaseMemory gives back what starting took and running does not need: the
// parsed configuration, its rules' compiler.
func releaseMemory() {
	debug.FreeOSMemory()
	forgetStartup()
}
