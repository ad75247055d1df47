// Command endpoints shows what becomes of calls when endpoints do, each against
// a goal, by calls through the agent's own process on loopback:
//
//	faults  five endpoints, of which one is killed, blackholed, refuses every
//	        call, is slow and never speaks, one after the other
//	churn   10,000 endpoints of which one in a hundred is another one every second
//
//	make bench-endpoints
//	go run ./bench/endpoints -only faults -fault 5s   # needs bin/outrigger (make build)
//
// It exits with 1 if a goal is missed. The blackhole drops packets where this
// is root and nft is there; elsewhere the endpoint's process is stopped, and
// that is said.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
)

// part is one of the things shown.
type part struct {
	name string
	run  func() ([]goals.Goal, error)
}

var parts = []part{
	{"faults", faults},
	{"churn", churn},
}

var (
	binary    = flag.String("agent", "bin/outrigger", "the agent's binary")
	only      = flag.String("only", "", "run only these, by commas: "+strings.Join(names(), " "))
	faultTime = flag.Duration("fault", 8*time.Second, "how long each fault lasts, and the quiet after it at least")
	faultRate = flag.Int("rate", 1000, "calls a second while endpoints fail")
	churnTime = flag.Duration("churn", 20*time.Second, "how long endpoints change")
	churnSize = flag.Int("size", 10_000, "how many endpoints change")
	endpoint  = flag.String("endpoint", "", "be an endpoint on this `ADDRESS`, steered by stdin; for this program's own use")
)

func names() []string {
	return []string{"faults", "churn"}
}

func main() {
	flag.Parse()
	run := run
	if *endpoint != "" {
		run = func() error { return serveEndpoint(*endpoint) }
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-endpoints:", err)
		os.Exit(1)
	}
}

func run() error {
	wanted := names()
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("-only: %q is none of %s", name, strings.Join(names(), ", "))
		}
	}
	var tally goals.Tally
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) {
			continue
		}
		found, err := p.run()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		tally.Print(found)
	}
	return tally.Err()
}

// soon is the goal that something happened, and not later than a bound.
func soon(found time.Duration, happened bool, bound time.Duration, what string) goals.Goal {
	if !happened {
		return goals.Goal{About: fmt.Sprintf("%s: not seen, want within %v", what, bound)}
	}
	return goals.Goal{About: fmt.Sprintf("%s after %v, want within %v", what, found.Round(10*time.Millisecond), bound), Met: found <= bound}
}

// succeeded is the goal that a share of calls, in percent, succeeded.
func succeeded(calls, failed int, bound float64, what string) goals.Goal {
	share := percent(calls, failed)
	return goals.Goal{About: fmt.Sprintf("%s: %d of %d calls failed: %.4f %% succeeded, want at least %.2f %%", what, failed, calls, share, bound), Met: calls > 0 && share >= bound}
}

func percent(calls, failed int) float64 {
	return 100 * float64(calls-failed) / float64(max(calls, 1))
}

// closers are closed in the opposite order.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c closers) close() error {
	var errs []error
	for _, f := range slices.Backward(c) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
