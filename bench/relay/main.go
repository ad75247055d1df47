// Command relay measures what a proxied call costs: CPU time of the proxy
// process per call, and the latency that the caller sees, Outrigger's beside
// HAProxy's, nginx's and Envoy's, in one interleaved run on loopback; and what
// it costs to have every policy on.
//
//	go run ./bench/relay                  # needs h2load (Debian: nghttp2-client)
//	go run ./bench/relay -rounds 7 -case c50m10,c1m1 -peers haproxy,envoy
//	go run ./bench/relay -tls             # the proxies speak TLS to the upstream
//
// Each round runs every proxy once per case, in turn, with the same upstream
// and the same load. Figures are medians over the rounds; ratios are medians
// of each round's own ratio, so that a machine whose speed drifts doesn't
// favour anybody. A proxy that is not installed is skipped and named.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
)

var (
	rounds  = flag.Int("rounds", 5, "rounds that count; one more comes first and warms up")
	cases   = flag.String("case", "", "run only these cases, by commas: "+strings.Join(caseNames(), " "))
	peers   = flag.String("peers", "", "run only these peers beside Outrigger, by commas: "+strings.Join(proxyNames()[1:], " "))
	scale   = flag.Float64("scale", 1, "multiply the calls of each case by this, for a short look")
	threads = flag.Int("threads", runtime.NumCPU(), "worker threads of Outrigger, HAProxy and Envoy alike; nginx is one process with one")
	secure  = flag.Bool("tls", false, "TLS between the proxies and the upstream; figures only, no goals")
	agent   = flag.String("agent", "bin/outrigger", "Outrigger's binary")

	upstream     = flag.String("upstream", "", "internal: serve as the upstream on this address")
	upstreamPair = flag.String("upstream-pair", "", "internal: serve with this file of certificate and key")
)

func main() {
	// A child dies with the thread that started it (Pdeathsig): the main
	// thread is the one that lives as long as the program.
	runtime.LockOSThread()
	flag.Parse()
	var err error
	if *upstream != "" {
		err = serveUpstream(*upstream, *upstreamPair)
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-relay:", err)
		os.Exit(1)
	}
}

func run() error {
	wantedCases, err := chosen(*cases, caseNames(), "-case")
	if err != nil {
		return err
	}
	wantedPeers, err := chosen(*peers, proxyNames()[1:], "-peers")
	if err != nil {
		return err
	}
	if *rounds < 1 || *threads < 1 || *scale <= 0 {
		return errors.New("-rounds and -threads are at least 1, -scale is more than 0")
	}
	if _, err := exec.LookPath("h2load"); err != nil {
		fmt.Println("SKIPPED: h2load is not installed (Debian: apt-get install nghttp2-client)")
		return nil
	}
	dir, err := os.MkdirTemp("", "bench-relay")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	to, up, err := startUpstream(dir)
	if err != nil {
		return err
	}
	defer up.stop()

	var running []*process
	for _, p := range proxies {
		if p.name != self && !slices.Contains(wantedPeers, p.name) {
			continue
		}
		proc, err := p.launch(dir, to)
		if errors.Is(err, errMissing) && p.name != self {
			fmt.Printf("SKIPPED: %s is not installed (%s)\n", p.name, p.install)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		defer proc.stop()
		running = append(running, proc)
	}
	var results []result
	for _, l := range loads {
		if !slices.Contains(wantedCases, l.name) {
			continue
		}
		r, err := measure(dir, l.scaled(*scale), running)
		if err != nil {
			return err
		}
		r.print()
		results = append(results, r)
	}
	printRatios(results)
	printCost(results)
	if *secure {
		return nil // the goals are for plaintext
	}
	return judge(results)
}

// startUpstream runs this program once more as the server behind the proxies.
func startUpstream(dir string) (target, *process, error) {
	program, err := os.Executable()
	if err != nil {
		return target{}, nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return target{}, nil, err
	}
	to := target{address: address}
	args := []string{"-upstream", address}
	if *secure {
		pair, ca, err := writeCertificates(dir)
		if err != nil {
			return target{}, nil, err
		}
		to.ca = ca
		args = append(args, "-upstream-pair", pair)
	}
	up, err := start(dir, "upstream", address, nil, program, args...)
	return to, up, err
}

// chosen splits a flag's list of names and refuses one that isn't known; an
// empty list means all.
func chosen(list string, known []string, name string) ([]string, error) {
	if list == "" {
		return known, nil
	}
	names := strings.Split(list, ",")
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("%s: %q is none of %s", name, n, strings.Join(known, ", "))
		}
	}
	return names, nil
}
