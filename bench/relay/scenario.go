package main

import "fmt"

// load is one shape of traffic.
type load struct {
	name                 string
	connections, streams int
	bytes                int
	calls                int
}

var loads = []load{
	{"c50m10", 50, 10, 100, 200_000},
	{"c8m1", 8, 1, 100, 50_000},
	{"c8m8-4k", 8, 8, 4 << 10, 80_000},
	{"c4m4-65k", 4, 4, 65_000, 12_000},
	{"c1m1", 1, 1, 100, 10_000},
}

func caseNames() []string {
	names := make([]string, len(loads))
	for i, l := range loads {
		names[i] = l.name
	}
	return names
}

// scaled changes how many calls are made. Every stream makes one at least.
func (l load) scaled(by float64) load {
	l.calls = max(int(float64(l.calls)*by), l.connections*l.streams)
	return l
}

func (l load) String() string {
	return fmt.Sprintf("%s: %d connections × %d streams, %d B, %d calls", l.name, l.connections, l.streams, l.bytes, l.calls)
}

// figure is something that is measured of a proxy.
type figure uint8

const (
	cpu     figure = iota // CPU time of the proxy per call, µs
	latency               // mean time of a call as h2load sees it, µs
)

func (f figure) String() string {
	return [...]string{"CPU per call", "mean latency"}[f]
}

// goal says that Outrigger's figure is at most this share of a peer's.
type goal struct {
	load   string
	peer   string
	figure figure
	most   float64
}

var goals = []goal{
	{"c50m10", "haproxy", cpu, 0.65},
	{"c8m1", "haproxy", cpu, 1.0},
	{"c8m8-4k", "haproxy", cpu, 0.75},
	{"c4m4-65k", "haproxy", cpu, 0.5},
	{"c50m10", "envoy", cpu, 0.35},
	{"c1m1", "haproxy", latency, 1.0},
}

// The policies add at most so much CPU time to a call of one of the loads, µs.
const (
	costLoad  = "c50m10"
	mostAdded = 2.0
)
