// Command policies shows what the policies are for, each against a goal and
// beside its peers, by calls through the agent's own process on loopback:
//
//	storm     an endpoint that always fails is not buried in retries
//	hedge     a second attempt cuts the tail for a few more calls
//	limit     an adaptive limit finds where an endpoint begins to queue
//	halfopen  one caller at a time probes an endpoint that was down
//
//	make bench-policies
//	go run ./bench/policies -only storm -seconds 5   # needs bin/outrigger (make build)
//
// It exits with 1 if a goal is missed. A peer that is not installed is skipped
// and named. The figures are of counts and of waits that are far above what a
// call costs, yet they want a machine that is not busy otherwise.
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
	{"storm", storm},
	{"hedge", hedge},
	{"limit", limit},
	{"halfopen", halfOpen},
}

var (
	binary  = flag.String("agent", "bin/outrigger", "the agent's binary")
	only    = flag.String("only", "", "run only these, by commas: "+strings.Join(names(), " "))
	seconds = flag.Int("seconds", 20, "how long each load lasts; shorter ones are noisier")
)

func names() []string {
	var all []string
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-policies:", err)
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
	if *seconds < 1 {
		return fmt.Errorf("-seconds %d: want at least 1", *seconds)
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

// length is how long a load lasts.
func length() time.Duration { return time.Duration(*seconds) * time.Second }

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
