// Command soak makes 100,000 calls of every kind through the agent and asks
// whether it is afterwards what it was before: goroutines, open descriptors,
// live heap.
//
//	go run ./bench/soak              # about a minute; needs bin/outrigger (make build)
//	go run ./bench/soak -calls 10000
//
// Before the first reading a share of the same calls warms the agent up, so
// that what it keeps for good (upstream connections, the windows of the SLA)
// is there. It exits with 1 if something doesn't return, or if a call ends
// otherwise than it should.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
)

// What may remain.
const (
	// An upstream connection more or less is the agent's choice: each has a
	// goroutine to read and a descriptor.
	moreGoroutines  = 2
	moreDescriptors = 2
	moreHeap        = 1 << 20
)

// patience is how long the agent has for letting go.
const patience = 30 * time.Second

var (
	binary = flag.String("agent", "bin/outrigger", "the agent's binary")
	calls  = flag.Int("calls", 100_000, "calls to make")
	warm   = flag.Int("warm", 10_000, "calls before the first reading")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-soak:", err)
		os.Exit(1)
	}
}

func run() error {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := newServer()
	go func() { _ = server.Serve(upstream) }()
	defer server.Stop()
	nobody, err := closedPort()
	if err != nil {
		return err
	}
	agent, err := sidecar.Start(*binary, fmt.Sprintf(`
egress: {address: "127.0.0.1:0"}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
services:
  - {name: soak, endpoints: {static: [{address: %q}]}}
  - {name: nobody, endpoints: {static: [{address: %q}]}}
`, upstream.Addr(), nobody))
	if err != nil {
		return err
	}
	defer agent.Stop()

	if t := drive(agent.Egress, *warm); t.wrong != nil {
		return t.wrong
	}
	before, err := settled(agent, nil)
	if err != nil {
		return err
	}
	stacks, err := agent.Goroutines()
	if err != nil {
		return err
	}
	began := time.Now()
	t := drive(agent.Egress, *calls)
	took := time.Since(began)
	after, err := settled(agent, &before)
	if err != nil {
		return err
	}
	fmt.Printf("%d calls over %d connections in %v:", t.calls(), t.connections, took.Round(100*time.Millisecond))
	for k := range kinds {
		fmt.Printf(" %d %s", t.made[k], kinds[k].name)
	}
	fmt.Println()
	fmt.Printf("  %-14s %12s %12s %10s\n", "", "before", "after", "may grow")
	fmt.Printf("  %-14s %12d %12d %10d\n", "goroutines", before.Goroutines, after.Goroutines, moreGoroutines)
	fmt.Printf("  %-14s %12d %12d %10d\n", "descriptors", before.Descriptors, after.Descriptors, moreDescriptors)
	fmt.Printf("  %-14s %12d %12d %10d\n", "live heap, KiB", before.Heap>>10, after.Heap>>10, moreHeap>>10)
	fmt.Printf("  %-14s %12d %12d\n", "resident, KiB", before.Resident>>10, after.Resident>>10)
	if t.wrong != nil {
		return fmt.Errorf("a call ended otherwise than it should: %w", t.wrong)
	}
	if back(before, after) {
		return nil
	}
	if err := printMore(agent, stacks); err != nil {
		return err
	}
	return fmt.Errorf("the agent holds more than before, %v after the last call", patience)
}

// settled reads the agent's usage when it is idle: twice the same goroutines
// and descriptors a second apart or, with something to return to, as soon as
// it did; at last when patience ends.
func settled(agent *sidecar.Agent, before *sidecar.Usage) (sidecar.Usage, error) {
	var last sidecar.Usage
	for deadline := time.Now().Add(patience); ; {
		time.Sleep(time.Second)
		u, err := agent.Usage()
		if err != nil {
			return u, err
		}
		still := u.Goroutines == last.Goroutines && u.Descriptors == last.Descriptors
		if time.Now().After(deadline) || (still && (before == nil || back(*before, u))) {
			return u, nil
		}
		last = u
	}
}

// back says whether the agent returned to what it was.
func back(before, after sidecar.Usage) bool {
	return after.Goroutines <= before.Goroutines+moreGoroutines &&
		after.Descriptors <= before.Descriptors+moreDescriptors &&
		after.Heap <= before.Heap+moreHeap
}

// printMore shows where the goroutines stand that are new, and what is open.
func printMore(agent *sidecar.Agent, before map[string]int) error {
	now, err := agent.Goroutines()
	if err != nil {
		return err
	}
	var lines []string
	for where, n := range now {
		if n > before[where] {
			lines = append(lines, fmt.Sprintf("  %+d goroutines in %s", n-before[where], where))
		}
	}
	open, err := agent.Open()
	if err != nil {
		return err
	}
	for kind, n := range open {
		lines = append(lines, fmt.Sprintf("  %d open of %s", n, kind))
	}
	slices.Sort(lines)
	for _, l := range lines {
		fmt.Println(l)
	}
	return nil
}

// closedPort returns an address on which nobody listens.
func closedPort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
