// Command relay measures what a proxied call costs: CPU time of the proxy
// process per call, Outrigger's beside its peers', in one interleaved run on
// loopback.
//
//	go run ./bench/relay                 # needs h2load and haproxy (Debian: nghttp2-client, haproxy); nginx too if it is there
//	go run ./bench/relay -rounds 7 -case c50m10
//
// Each round runs every proxy once per case, in turn, with the same upstream
// and the same load; the figure is the median over the rounds. A proxy that
// is not installed is skipped and named.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load is one shape of traffic.
type load struct {
	name                 string
	connections, streams int
	bytes                int
	calls                int
	goal                 float64 // Outrigger's CPU per call at most this share of HAProxy's; 0: not judged
}

var loads = []load{
	{"c50m10", 50, 10, 100, 200_000, 0.8},
	{"c8m1", 8, 1, 100, 50_000, 0},
	{"c8m8-4k", 8, 8, 4 << 10, 80_000, 0},
	{"c4m4-65k", 4, 4, 65_000, 12_000, 0},
	{"c1m1", 1, 1, 100, 10_000, 0},
}

var (
	rounds   = flag.Int("rounds", 5, "rounds; the median counts")
	only     = flag.String("case", "", "run only this case: "+caseNames())
	agent    = flag.String("agent", "bin/outrigger", "Outrigger's binary")
	upstream = flag.String("upstream", "", "internal: serve as the upstream on this address")
)

func caseNames() string {
	names := make([]string, len(loads))
	for i, l := range loads {
		names[i] = l.name
	}
	return strings.Join(names, " ")
}

func main() {
	flag.Parse()
	if *upstream != "" {
		fail(serveUpstream(*upstream))
		return
	}
	if err := run(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-relay:", err)
		os.Exit(1)
	}
}

// errMissing marks a tool that is not on this machine.
var errMissing = errors.New("not installed")

func run() error {
	for _, tool := range []string{"h2load", "haproxy"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Printf("SKIPPED: %s is not installed (Debian: apt-get install haproxy nghttp2-client)\n", tool)
			return nil
		}
	}
	dir, err := os.MkdirTemp("", "bench-relay")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	upstreamAddress, err := freeAddress()
	if err != nil {
		return err
	}
	up, err := start(dir, "upstream", upstreamAddress, self, "-upstream", upstreamAddress)
	if err != nil {
		return err
	}
	defer up.stop()

	var proxies []*process
	for _, p := range peers {
		address, err := freeAddress()
		if err != nil {
			return err
		}
		proc, err := p.start(dir, address, upstreamAddress)
		if errors.Is(err, errMissing) {
			fmt.Printf("skipped: %s is not installed\n", p.name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		defer proc.stop()
		proxies = append(proxies, proc)
	}
	missed := false
	for _, l := range loads {
		if *only != "" && *only != l.name {
			continue
		}
		ok, err := measure(dir, l, proxies)
		if err != nil {
			return err
		}
		missed = missed || !ok
	}
	if missed {
		return errors.New("a goal was missed")
	}
	return nil
}

// measure runs one load against every proxy and prints its table.
func measure(dir string, l load, proxies []*process) (ok bool, err error) {
	body := filepath.Join(dir, "body")
	if err := os.WriteFile(body, grpcMessage(l.bytes), 0o600); err != nil {
		return false, err
	}
	cpu := make(map[string][]float64)
	latency := make(map[string][]float64)
	for round := range *rounds + 1 {
		for _, p := range proxies {
			c, mean, err := once(l, p, body)
			if err != nil {
				return false, fmt.Errorf("%s through %s: %w", l.name, p.name, err)
			}
			if round > 0 { // the first warms up
				cpu[p.name] = append(cpu[p.name], c)
				latency[p.name] = append(latency[p.name], mean)
			}
		}
	}
	fmt.Printf("\n%s: %d connections × %d streams, %d B, %d calls, %d rounds\n", l.name, l.connections, l.streams, l.bytes, l.calls, *rounds)
	fmt.Printf("  %-10s %28s %16s %12s\n", "proxy", "CPU µs/call (min–max)", "mean latency µs", "÷ haproxy")
	base := median(cpu["haproxy"])
	ok = true
	for _, p := range proxies {
		v := cpu[p.name]
		ratio := median(v) / base
		verdict := ""
		if p.name == "outrigger" && l.goal > 0 {
			verdict = fmt.Sprintf("  goal ≤ %.2f: met", l.goal)
			if ratio > l.goal {
				verdict, ok = fmt.Sprintf("  goal ≤ %.2f: MISSED", l.goal), false
			}
		}
		fmt.Printf("  %-10s %10.2f (%6.2f–%6.2f) %16.0f %12.2f%s\n", p.name, median(v), slices.Min(v), slices.Max(v), median(latency[p.name]), ratio, verdict)
	}
	return ok, nil
}

// once runs the load through one proxy and returns its CPU time per call in
// microseconds, and the mean latency.
func once(l load, p *process, body string) (cpu, mean float64, err error) {
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	out, err := exec.Command("h2load", "-n", strconv.Itoa(l.calls), "-c", strconv.Itoa(l.connections), "-m", strconv.Itoa(l.streams), "-t", "1",
		"-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers",
		"http://"+p.address+"/bench.Echo/Call").CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("h2load: %w\n%s", err, out)
	}
	after, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	text := string(out)
	if !strings.Contains(text, fmt.Sprintf(" %d succeeded, 0 failed", l.calls)) {
		return 0, 0, fmt.Errorf("calls failed:\n%s", text)
	}
	_, rest, _ := strings.Cut(text, "time for request:")
	fields := strings.Fields(rest)
	if len(fields) < 3 {
		return 0, 0, fmt.Errorf("h2load printed no latency:\n%s", text)
	}
	d, err := time.ParseDuration(fields[2]) // min, max, mean
	if err != nil {
		return 0, 0, err
	}
	return float64((after - before).Microseconds()) / float64(l.calls), float64(d.Nanoseconds()) / 1000, nil
}

func median(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	if len(s) == 0 {
		return 0
	}
	return s[len(s)/2]
}
