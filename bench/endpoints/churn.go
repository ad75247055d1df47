package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

const (
	churnRate = 200             // calls a second
	quiet     = 5 * time.Second // without a change, to compare with
	goneAfter = 2 * time.Second // from an endpoint's leaving the list to its end
	takenOver = 5 * time.Second // within which the agent is to have the last list, after its second
)

// churn makes calls while a hundredth of very many endpoints becomes another one
// every second.
func churn() (found []goals.Goal, err error) {
	fmt.Printf("churn: %d calls/s over %d endpoints of a watched file, of which %d are replaced every second for %v\n", churnRate, *churnSize, *churnSize/100, *churnTime)
	serving := newAddresses()
	defer serving.stop()
	var listed []string
	for range *churnSize {
		address, err := serving.next()
		if err != nil {
			return nil, err
		}
		listed = append(listed, address)
	}
	dir, err := os.MkdirTemp("", "outrigger-bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "endpoints.yaml")
	if err := writeList(file, listed); err != nil {
		return nil, err
	}
	agent, err := sidecar.Start(*binary, fmt.Sprintf("%sservices: [{name: %s, endpoints: {file: {path: %q}}}]\n", listeners, service, file))
	if err != nil {
		return nil, err
	}
	defer agent.Stop()
	ccs, leave, err := connect(agent.Egress, 4)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	if _, err := awaitList(agent, listed); err != nil {
		return nil, err
	}
	idle, err := agent.Resident()
	if err != nil {
		return nil, err
	}
	l := startLoad(ccs, churnRate)
	began := time.Now()
	before, err := usageOver(agent, func() error { time.Sleep(quiet); return nil })
	if err == nil {
		var during usage
		during, err = usageOver(agent, func() error { listed, err = replace(serving, file, listed); return err })
		fmt.Printf("  agent: %v at rest, then without changes %v, with them %v\n", mebibytes(idle), before, during)
	}
	var took time.Duration
	if err == nil {
		took, err = awaitList(agent, listed)
	}
	l.end()
	if err != nil {
		return nil, err
	}
	calls, failed, longest, errs := l.tally(began, time.Now())
	fmt.Printf("  %d calls, %d failed, the longest took %v\n", calls, failed, longest.Round(time.Millisecond))
	printErrors(errs)
	return []goals.Goal{
		succeeded(calls, failed, 100, "while endpoints change"),
		soon(took, took <= takenOver, takenOver, "a second after the last change, the file's list is the agent's"),
	}, nil
}

// replace puts new endpoints into the place of the oldest ones, every second,
// and returns the last list.
func replace(serving *addresses, file string, listed []string) ([]string, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for end := time.Now().Add(*churnTime); time.Now().Before(end); <-tick.C {
		n := max(len(listed)/100, 1)
		for range n {
			address, err := serving.next()
			if err != nil {
				return listed, err
			}
			listed = append(listed, address)
		}
		for _, address := range listed[:n] {
			serving.retire(address, goneAfter)
		}
		listed = listed[n:]
		if err := writeList(file, listed); err != nil {
			return listed, err
		}
	}
	return listed, nil
}

// writeList puts a list of endpoints into the place of a file, all at once.
func writeList(file string, listed []string) error {
	var text strings.Builder
	for _, address := range listed {
		fmt.Fprintf(&text, "- {address: %q}\n", address)
	}
	if err := os.WriteFile(file+".next", []byte(text.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".next", file)
}

// awaitList waits until the agent has a list, but for endpoints that left and
// finish what they have, and returns how long that took; for twice as long as it
// may take at most.
func awaitList(agent *sidecar.Agent, listed []string) (time.Duration, error) {
	cc, err := grpc.NewClient("passthrough:///"+agent.API, grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = cc.Close() }()
	began := time.Now()
	for {
		found, err := live(outriggerv1.NewEndpointServiceClient(cc))
		if err != nil {
			return 0, err
		}
		missing := 0
		for _, address := range listed {
			if !found[address] {
				missing++
			}
			delete(found, address)
		}
		switch took := time.Since(began); {
		case missing == 0 && len(found) == 0:
			return took, nil
		case took > 2*takenOver:
			return 0, fmt.Errorf("after %v the agent lacks %d of %d endpoints and has %d that left", took.Round(time.Millisecond), missing, len(listed), len(found))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// live returns the endpoints that may take new calls.
func live(client outriggerv1.EndpointServiceClient) (map[string]bool, error) {
	found := make(map[string]bool)
	request := &outriggerv1.ListEndpointsRequest{Service: service, PageSize: 1000}
	for {
		page, err := client.ListEndpoints(context.Background(), request)
		if err != nil {
			return nil, err
		}
		for _, e := range page.GetEndpoints() {
			if e.GetState() != outriggerv1.Endpoint_DRAINING {
				found[e.GetAddress()] = true
			}
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return found, nil
		}
	}
}

// usage is what the agent used over a time.
type usage struct {
	cores    float64 // CPU seconds a second
	resident int     // bytes, the most that was seen
}

func (u usage) String() string {
	return fmt.Sprintf("%.3f CPU seconds/s and at most %s", u.cores, mebibytes(u.resident))
}

func mebibytes(n int) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

// usageOver measures the agent while something runs.
func usageOver(agent *sidecar.Agent, run func() error) (u usage, err error) {
	began := time.Now()
	before, err := agent.CPU()
	if err != nil {
		return u, err
	}
	done := make(chan error, 1)
	go func() { done <- run() }()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-tick.C:
			now, err := agent.Resident()
			if err != nil {
				return u, errors.Join(err, <-done)
			}
			u.resident = max(u.resident, now)
			continue
		case err = <-done:
		}
		tick.Stop()
		break
	}
	after, failed := agent.CPU()
	u.cores = (after - before).Seconds() / time.Since(began).Seconds()
	return u, errors.Join(err, failed)
}
