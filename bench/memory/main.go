// Command memory measures what the agent holds in memory: for a long stream
// whose reader stops, beside other calls; for many idle streams; for many idle
// connections.
//
//	make bench-memory
//	go run ./bench/memory -case connections -connections 5000
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
)

// settle is how long the agent is left alone before its memory is read.
const settle = 2 * time.Second

// measurement is one of the things measured, each with an agent of its own.
type measurement struct {
	name string
	run  func(*sidecar.Agent) error
}

var measurements = []measurement{
	{"stalled", stalledStream},
	{"streams", idleStreams},
	{"connections", idleConnections},
}

var (
	binary      = flag.String("agent", "bin/outrigger", "the agent's binary")
	cases       = flag.String("case", "", "run only these, by commas: "+strings.Join(names(), " "))
	connections = flag.Int("connections", 10_000, "idle connections")
	egress      = flag.String("egress", "limits: {connections: 20000, connections_per_peer: 20000}", `further fields of the agent's egress block, for example 'limits: {connections: 20000}'`)
)

func names() []string {
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	return all
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-memory:", err)
		os.Exit(1)
	}
}

func run() error {
	wanted := names()
	if *cases != "" {
		wanted = strings.Split(*cases, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-case: %q is none of %s", name, strings.Join(names(), ", "))
		}
	}
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := newServer()
	go func() { _ = server.Serve(upstream) }()
	defer server.Stop()
	missed := 0
	for _, m := range measurements {
		if !slices.Contains(wanted, m.name) {
			continue
		}
		err := withAgent(upstream.Addr().String(), m.run)
		if errors.Is(err, errMissed) {
			missed++
		} else if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d: %w", missed, len(wanted), errMissed)
	}
	return nil
}

// withAgent starts the agent in front of the upstream for one measurement.
func withAgent(upstream string, measure func(*sidecar.Agent) error) error {
	more := ""
	if *egress != "" {
		more = ", " + *egress
	}
	agent, err := sidecar.Start(*binary, fmt.Sprintf(`
egress: {address: "127.0.0.1:0"%s}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
services: [{name: memory, endpoints: {static: [{address: %q}]}}]
`, more, upstream))
	if err != nil {
		return err
	}
	defer agent.Stop()
	return measure(agent)
}

// grown returns by how much the agent's resident memory grew, after it was
// left alone for a while. KiB.
func grown(agent *sidecar.Agent, before int) (float64, error) {
	time.Sleep(settle)
	now, err := agent.Resident()
	return float64(now-before) / 1024, err
}

var errMissed = errors.New("goal missed")

// judge prints what was found with its goal.
func judge(met bool, goal int, format string, args ...any) error {
	fmt.Printf(format, args...)
	if met {
		fmt.Printf(" (goal %d KiB: met)\n", goal)
		return nil
	}
	fmt.Printf(" (goal %d KiB: MISSED)\n", goal)
	return errMissed
}
