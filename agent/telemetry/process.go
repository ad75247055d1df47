package telemetry

import (
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// runtimeSamples are what is asked of the Go runtime, in this order.
var runtimeSamples = [...]string{
	"/memory/classes/total:bytes",
	"/memory/classes/heap/released:bytes",
	"/memory/classes/heap/stacks:bytes",
	"/gc/heap/goal:bytes",
	"/gc/cycles/total:gc-cycles",
	"/sched/goroutines:goroutines",
}

// collectProcess adds the few figures that tell a sick process from a busy one.
func collectProcess(c *collection, version string) {
	var samples [len(runtimeSamples)]metrics.Sample
	for i, name := range runtimeSamples {
		samples[i].Name = name
	}
	metrics.Read(samples[:])
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	total, released, stacks := value(0), value(1), value(2)
	c.level(goMemory, int64(stacks), keyMemoryType.String("stack"))
	c.level(goMemory, int64(total-released-stacks), keyMemoryType.String("other"))
	c.level(goGoal, int64(value(3)))
	c.counter(goCycles, value(4))
	c.level(goroutines, int64(value(5)))

	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		c.seconds(processCPU, time.Duration(usage.Utime.Nano()).Seconds(), keyCPUMode.String("user"))
		c.seconds(processCPU, time.Duration(usage.Stime.Nano()).Seconds(), keyCPUMode.String("system"))
	}
	if bytes, ok := residentMemory(); ok {
		c.level(processMemory, bytes)
	}
	if n, ok := openDescriptors(); ok {
		c.level(openFiles, n)
	}
	c.gauge(processUptime, c.now.Sub(c.start).Seconds())
	c.gauge(buildInfo, 1, keyVersion.String(version), keyGoVersion.String(runtime.Version()))
}

// residentMemory reads what Linux says; ok is false elsewhere.
func residentMemory() (bytes int64, ok bool) {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	fields := strings.Fields(string(statm))
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}

// openDescriptors counts what Linux lists; ok is false elsewhere.
func openDescriptors() (n int64, ok bool) {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	return int64(len(names) - 1), err == nil // without the one that lists
}
