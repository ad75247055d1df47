package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
)

const (
	endpoints     = 5
	wantSuccess   = 99.95
	outWithin     = 2 * time.Second
	outWithinHole = 3 * time.Second
	backWithin    = 10 * time.Second
)

// faultPolicy is what a user would write who wants faults gone within two
// seconds and endpoints back within ten: retries, a bound for each try, checks
// twice a second, and ejections that are short, since whoever comes back too
// early is out again after five failures.
const faultPolicy = `      timeout: 4s
      per_try_timeout: 500ms
      idempotent: true
      retry: {max_attempts: 3}
      load_balancing: {policy: LEAST_REQUEST}
      health_check: {grpc: {}, interval: 500ms, timeout: 400ms}
      outlier_detection: {mode: ENFORCE, consecutive_failures: 5, latency_factor: 5, interval: 1s, eject_for: 3s, max_eject_for: 6s}
`

// fault is something that happens to an endpoint and ends again.
type fault struct {
	name  string
	out   time.Duration // within which it is to be out of rotation
	begin func(p *process) (end func() (*process, error), err error)
}

// word is a fault that the endpoint's process makes itself.
func word(begin, end string) func(p *process) (func() (*process, error), error) {
	return func(p *process) (func() (*process, error), error) {
		return func() (*process, error) { return p, p.tell(end) }, p.tell(begin)
	}
}

var sequence = []fault{
	{"killed", outWithin, func(p *process) (func() (*process, error), error) {
		return func() (*process, error) { return startProcess(p.address) }, p.kill()
	}},
	{"blackholed", outWithinHole, func(p *process) (func() (*process, error), error) {
		how, end, err := blackhole(p)
		fmt.Println("   ", how)
		return func() (*process, error) { return p, end() }, err
	}},
	{"UNAVAILABLE to every call", outWithin, word("refuse", "answer")},
	{"slow × 20", outWithin, word("slow", "usual")},
	{"accepts and never speaks", outWithin, word("mute", "speak")},
}

// faults makes calls while endpoints fail one after the other.
func faults() (found []goals.Goal, err error) {
	fmt.Printf("faults: %d calls/s over %d endpoints of %v a call; each fault lasts %v\n", *faultRate, endpoints, usual, *faultTime)
	var processes []*process
	defer func() {
		for _, p := range processes {
			err = errors.Join(err, p.kill())
		}
	}()
	var static []string
	for range endpoints {
		p, err := startProcess("")
		if err != nil {
			return nil, err
		}
		processes = append(processes, p)
		static = append(static, fmt.Sprintf("{address: %q}", p.address))
	}
	agent, err := sidecar.Start(*binary, fmt.Sprintf("%sservices:\n  - name: %s\n    endpoints: {static: [%s]}\n    policy:\n%s", listeners, service, strings.Join(static, ", "), faultPolicy))
	if err != nil {
		return nil, err
	}
	defer agent.Stop()
	ccs, leave, err := connect(agent.Egress, 4)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	w, err := watch(agent.API)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	l := startLoad(ccs, *faultRate)
	ended := false
	defer func() {
		if !ended {
			l.end()
		}
	}()
	began := time.Now()
	time.Sleep(3 * time.Second)
	for i, f := range sequence {
		more, err := suffer(f, &processes[i], agent, w, l)
		if err != nil {
			return found, fmt.Errorf("%s: %w", f.name, err)
		}
		found = append(found, more...)
	}
	l.end()
	ended = true
	calls, failed, longest, errs := l.tally(began, time.Now())
	fmt.Printf("  all: %d calls, %d failed, the longest took %v\n", calls, failed, longest.Round(time.Millisecond))
	printErrors(errs)
	return append(found, succeeded(calls, failed, wantSuccess, "over all faults")), nil
}

// listeners are where the agents of all parts listen.
const listeners = "egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n"

// suffer lets one endpoint have a fault and recover.
func suffer(f fault, p **process, agent *sidecar.Agent, w *watcher, l *load) (found []goals.Goal, err error) {
	address := (*p).address
	fmt.Printf("  %s: %s\n", f.name, address)
	began := time.Now()
	end, err := f.begin(*p)
	if err != nil {
		return nil, err
	}
	time.Sleep(*faultTime / 2)
	said, err := list(agent, address)
	time.Sleep(time.Until(began.Add(*faultTime)))
	recovered := time.Now()
	next, failed := end()
	if next != nil {
		*p = next
	}
	if err := errors.Join(err, failed); err != nil {
		return nil, err
	}
	// It has until the bound, and the next fault its quiet.
	var back time.Time
	isBack := false
	for !isBack && time.Since(recovered) < backWithin+2*time.Second || time.Since(recovered) < *faultTime {
		time.Sleep(100 * time.Millisecond)
		seen, err := w.of(address, recovered, time.Now())
		if err != nil {
			return nil, err
		}
		back, isBack = returns(seen, endpoints)
	}
	during, err := w.of(address, began, recovered)
	if err != nil {
		return nil, err
	}
	out, isOut := leaves(during, endpoints)
	calls, lost, longest, errs := l.tally(began, time.Now())
	fmt.Printf("    %d calls, %d failed: %.4f %% succeeded, the longest took %v\n", calls, lost, percent(calls, lost), longest.Round(time.Millisecond))
	printErrors(errs)
	if isOut && len(during) > 0 {
		fmt.Printf("    out after %v, then %s\n", out.Sub(began).Round(10*time.Millisecond), after(during, out))
	}
	fmt.Printf("    in its middle, endpoint list: %s\n", said)
	printStates(during, began)
	if seen, _ := w.of(address, recovered, time.Now()); len(seen) > 0 {
		fmt.Print("    after it: ")
		printStates(seen, recovered)
	}
	return append(found,
		soon(out.Sub(began), isOut, f.out, f.name+": out of rotation"),
		soon(back.Sub(recovered), isBack, backWithin, f.name+": back")), nil
}

// after says what an endpoint got once it was out.
func after(seen []sight, out time.Time) string {
	i := slices.IndexFunc(seen, func(s sight) bool { return !s.at.Before(out) })
	first, last := seen[i], seen[len(seen)-1]
	return fmt.Sprintf("%d attempts until the fault's end: %.2f %% of its fair share", last.calls-first.calls, 100*share(first, last, endpoints))
}

// printStates prints each state that an endpoint was seen in, with the reason
// that was given first.
func printStates(seen []sight, began time.Time) {
	var states []string
	for i, s := range seen {
		if i > 0 && s.state == seen[i-1].state {
			continue
		}
		text := fmt.Sprintf("%.2f s %v", s.at.Sub(began).Seconds(), s.state)
		if s.reason != "" {
			text += fmt.Sprintf(" (%s)", s.reason)
		}
		states = append(states, text)
	}
	fmt.Println("    seen:", strings.Join(states, ", "))
}

// printErrors prints the most frequent errors.
func printErrors(errs map[string]int) {
	texts := slices.SortedFunc(maps.Keys(errs), func(a, b string) int { return cmp.Compare(errs[b], errs[a]) })
	for _, text := range texts[:min(len(texts), 3)] {
		fmt.Printf("    %d × %s\n", errs[text], text)
	}
}

// list asks the agent as an operator does and returns the endpoint's line.
func list(agent *sidecar.Agent, address string) (string, error) {
	text, err := exec.Command(*binary, "endpoint", "list", "--api", agent.API).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("endpoint list: %w: %s", err, text)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, address) {
			return strings.Join(strings.Fields(line), " "), nil
		}
	}
	return "", fmt.Errorf("endpoint list does not have %s:\n%s", address, text)
}
