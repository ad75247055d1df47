// Command attack measures what the agent's good clients notice of its bad
// ones. It starts the agent in front of a real gRPC server, lets a grpc-go
// client make 200 calls a second, and attacks the egress port beside it from
// a raw-frame client: one attack after another, each against a fresh agent.
//
//	make build
//	cd test/attack
//	go run .                                # every attack, about 4 minutes
//	go run . -only rapid-reset,ping-flood   # some
//	go run . -list                          # what there is
//	go run . -json                          # the figures, for programs
//
// A row says how soon the attacker was cut off, what the good client felt, how
// the agent's memory grew, and what the agent counted and logged. A verdict
// that fails makes the exit code 1; what each one asks stands in verdict.go.
//
// The server and the attacker are processes of their own (of this same
// program): the agent's memory stays its own, and the good client's timings do
// not suffer from the attacker's garbage. A second good client goes past the
// agent: it tells what the server and the machine are to blame for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

const (
	roleServer   = "server"
	roleAttacker = "attacker"
)

var (
	agentPath = flag.String("agent", "../../bin/outrigger", "the agent's binary")
	only      = flag.String("only", "", "run only these attacks: `NAME,NAME`")
	tries     = flag.Int("tries", 1, "measure an attack up to `N` times while only its p99 verdict fails: another process on the machine can spoil a second")
	asJSON    = flag.Bool("json", false, "print JSON instead of the table")
	list      = flag.Bool("list", false, "list the attacks")
	verbose   = flag.Bool("v", false, "print what the agent logged, too")

	role   = flag.String("role", "", "internal: what this process is")
	target = flag.String("target", "", "internal: whom the attacker attacks")
)

var errVerdict = errors.New("not every verdict holds")

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	switch {
	case *role == roleServer:
		return serve(ctx)
	case *role == roleAttacker:
		return attackerMain(ctx, chosen[0], *target)
	case *list:
		for _, p := range chosen {
			fmt.Printf("%-24s %s\n", p.name, p.about)
		}
		return nil
	}
	var outcomes []outcome
	if !*asJSON {
		printHeader(os.Stdout)
	}
	for _, p := range chosen {
		var o outcome
		for try := 1; try <= max(*tries, 1); try++ {
			if o, err = measure(ctx, p); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if o.Tries = try; !o.onlyLate() {
				break
			}
		}
		outcomes = append(outcomes, o)
		if !*asJSON {
			printRow(os.Stdout, &o)
		}
	}
	if *asJSON {
		if err := printJSON(os.Stdout, outcomes); err != nil {
			return err
		}
	} else {
		printFailures(os.Stdout, outcomes)
	}
	if slices.ContainsFunc(outcomes, func(o outcome) bool { return o.failed() }) {
		return errVerdict
	}
	return nil
}

// choose returns the attacks that names lists, in the order of attacks; all of
// them when it is empty.
func choose(names string) ([]plan, error) {
	if names == "" {
		return attacks, nil
	}
	wanted := strings.Split(names, ",")
	var chosen []plan
	for _, p := range attacks {
		if slices.Contains(wanted, p.name) {
			chosen = append(chosen, p)
		}
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(attacks, func(p plan) bool { return p.name == name }) {
			return nil, fmt.Errorf("-only: there is no attack %q; -list names them all", name)
		}
	}
	return chosen, nil
}
