package agent

import (
	"bytes"
	"math"
	"os"
	"runtime/debug"
	"strconv"
)

const (
	// gcPercent lets the heap triple between collections. The live heap is a
	// few megabytes, so that costs little memory and saves most of the
	// collections that the standard 100 would run under load.
	gcPercent = 200
	// limitShare is how much of a container's memory the heap may take before
	// collections come more often; the rest is for stacks, code and sockets.
	limitShare = 0.9
)

// tuneMemory sets the garbage collector up for a small, busy heap. What the
// environment says (GOGC, GOMEMLIMIT) stands.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		if limit, ok := containerMemory(); ok {
			debug.SetMemoryLimit(int64(float64(limit) * limitShare))
		}
	}
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
