package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is what one load cost each proxy, round by round.
type result struct {
	load    load
	order   []string                        // the proxies that ran
	figures map[figure]map[string][]float64 // by proxy, one for each round
}

// measure runs one load through every proxy, round after round.
func measure(dir string, l load, running []*process) (result, error) {
	r := result{load: l, figures: map[figure]map[string][]float64{cpu: {}, latency: {}}}
	for _, p := range running {
		r.order = append(r.order, p.name)
	}
	body := filepath.Join(dir, "body")
	if err := os.WriteFile(body, grpcMessage(l.bytes), 0o600); err != nil {
		return r, err
	}
	for round := range *rounds + 1 {
		for i := range running {
			// Everybody has its turn at being the first of a round.
			p := running[(round+i)%len(running)]
			c, mean, err := once(l, p, body)
			if err != nil {
				return r, fmt.Errorf("%s through %s: %w", l.name, p.name, err)
			}
			if round > 0 { // the first warms up
				r.figures[cpu][p.name] = append(r.figures[cpu][p.name], c)
				r.figures[latency][p.name] = append(r.figures[latency][p.name], mean)
			}
		}
	}
	return r, nil
}

// once runs the load through one proxy and returns its CPU time per call and
// the mean latency, both in microseconds.
func once(l load, p *process, body string) (spent, mean float64, err error) {
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
	// A gRPC refusal is an HTTP success; it has no body.
	if !strings.Contains(text, fmt.Sprintf("(%d) data", l.calls*(5+l.bytes))) {
		return 0, 0, fmt.Errorf("calls were answered with something else than their own body:\n%s", text)
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
	return float64((after - before).Nanoseconds()) / 1000 / float64(l.calls), float64(d.Nanoseconds()) / 1000, nil
}

func median(v []float64) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2]
}

// ratio returns Outrigger's figure as a share of a peer's: the median of the
// rounds' own ratios. ok is false if the peer didn't run.
func (r result) ratio(f figure, peer string) (share float64, ok bool) {
	ours, theirs := r.figures[f][self], r.figures[f][peer]
	if len(theirs) == 0 {
		return 0, false
	}
	shares := make([]float64, len(ours))
	for i := range ours {
		shares[i] = ours[i] / theirs[i]
	}
	return median(shares), true
}

// added returns by how much the policies raised the CPU time of a call in each
// round. ok is false if the agent did not run with them.
func (r result) added() (micros []float64, ok bool) {
	plain, all := r.figures[cpu][self], r.figures[cpu][guarded]
	for i := range all {
		micros = append(micros, all[i]-plain[i])
	}
	return micros, len(micros) > 0
}
