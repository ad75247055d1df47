package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	// warmUp is before anything is measured: connections are made, and the
	// agent's memory finds its level.
	warmUp    = 2 * time.Second
	quietTime = 3 * time.Second
	// leastTime is how long the good client is watched beside an attack that
	// is over sooner: a p99 wants some hundreds of calls.
	leastTime = 3 * time.Second
	// attackerExit is how long after its time the attacker may take to report.
	attackerExit = 10 * time.Second
	// logSample is how many connections are looked for in the log.
	logSample = 50
)

// outcome is what one attack did. Memory is in KiB.
type outcome struct {
	Attack string     `json:"attack"`
	About  string     `json:"about"`
	Crowd  bool       `json:"crowd,omitempty"`
	Quiet  experience `json:"quiet"`
	During experience `json:"during"`
	// Direct is what a client felt meanwhile that goes past the agent: what
	// the server and the machine are to blame for.
	Direct experience `json:"direct"`

	RSSBefore  int  `json:"rss_before_kib"`
	RSSPeak    int  `json:"rss_peak_kib"`
	AgentAlive bool `json:"agent_alive"`

	// Opened connections of the attacker, Cut of them ended by the agent,
	// Uncut those that were not in mostUncut (one opened late in the attack is
	// neither), NotOpened those that it could not even make.
	Opened    int `json:"opened"`
	Cut       int `json:"cut"`
	Uncut     int `json:"uncut"`
	NotOpened int `json:"not_opened,omitempty"`
	Frames    int `json:"frames"`
	// FirstCut counts from the attack's begin, LastCut is the longest that any
	// connection lasted until its cut-off. How is how the first was.
	FirstCut time.Duration `json:"first_cut_ns"`
	LastCut  time.Duration `json:"last_cut_ns"`
	How      string        `json:"how,omitempty"`

	// Moved are the relay's counters that moved, traffic apart; Refusals the
	// refused calls, by reason.
	Moved    []string `json:"moved,omitempty"`
	Refusals []string `json:"refusals,omitempty"`

	// Sampled connections that were cut off; Unlogged of them are in no line
	// of the log, Repeated in several. LinesOfHost name the attacker, Line is
	// the first of them. CallLines are the access log's, which is bounded by
	// itself and counted apart.
	Sampled     int    `json:"sampled"`
	Unlogged    int    `json:"unlogged"`
	Repeated    int    `json:"repeated"`
	LinesOfHost int    `json:"lines_of_host"`
	Line        string `json:"line,omitempty"`
	CallLines   int    `json:"call_lines"`

	Failures []string `json:"failures,omitempty"`
	Tries    int      `json:"tries"`
}

func (o *outcome) failed() bool { return len(o.Failures) > 0 }

// onlyLate reports whether nothing but the good client's p99 is wrong.
func (o *outcome) onlyLate() bool {
	return len(o.Failures) == 1 && strings.HasPrefix(o.Failures[0], verdictLatency+":")
}

func (o *outcome) growth() int { return o.RSSPeak - o.RSSBefore }

// measure runs one attack against a fresh agent.
func measure(ctx context.Context, p plan) (outcome, error) {
	o := outcome{Attack: p.name, About: p.about, Crowd: p.crowd}
	a, err := startAgent()
	if err != nil {
		return o, err
	}
	defer a.stop()
	good, err := startClient(a.egress)
	if err != nil {
		return o, err
	}
	defer good.close()
	direct, err := startClient(a.upstream)
	if err != nil {
		return o, err
	}
	defer direct.close()
	if !wait(ctx, warmUp+quietTime) {
		return o, ctx.Err()
	}
	before, err := a.metrics()
	if err != nil {
		return o, err
	}
	if o.RSSBefore, err = a.resident(); err != nil {
		return o, err
	}

	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	peak := make(chan int, 1)
	go func() { peak <- a.peak(watching) }()
	begin := time.Now()
	strikes, err := runAttacker(ctx, p, a.egress)
	if err != nil {
		return o, err
	}
	if !wait(ctx, time.Until(begin.Add(leastTime))) {
		return o, ctx.Err()
	}
	end := time.Now()
	good.close()
	unwatch()
	o.RSSPeak = <-peak
	o.AgentAlive = a.alive()
	o.Quiet = good.between(begin.Add(-quietTime), begin)
	o.During = good.between(begin, end)
	o.Direct = direct.between(begin, end)

	o.countStrikes(strikes)
	lines := a.lines()
	o.readLog(lines, strikes)
	if *verbose {
		fmt.Fprintf(os.Stderr, "%s: the agent logged:\n%s\n", p.name, strings.Join(lines[:min(len(lines), 20)], "\n"))
	}
	if o.AgentAlive {
		after, err := a.metrics()
		if err != nil {
			return o, err
		}
		o.Moved, o.Refusals = moved(before, after)
	}
	o.Failures = judge(&o)
	return o, nil
}

// runAttacker runs the attack in a process of its own.
func runAttacker(ctx context.Context, p plan, egress string) ([]strikeReport, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, attackTime+attackerExit)
	defer cancel()
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, self, "-role", roleAttacker, "-only", p.name, "-target", egress)
	cmd.Stdout, cmd.Stderr = &stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("the attacker: %w", err)
	}
	var strikes []strikeReport
	if err := json.Unmarshal(stdout.Bytes(), &strikes); err != nil {
		return nil, fmt.Errorf("the attacker's report: %w", err)
	}
	return strikes, nil
}

// countStrikes sums up what the attacker saw.
func (o *outcome) countStrikes(strikes []strikeReport) {
	slices.SortFunc(strikes, func(a, b strikeReport) int { return cmp.Compare(a.At+a.CutAfter, b.At+b.CutAfter) })
	for _, s := range strikes {
		o.Frames += s.Frames
		if s.Peer == "" {
			if o.NotOpened++; o.How == "" && o.Cut == 0 {
				o.How = s.How
			}
			continue
		}
		o.Opened++
		if !s.cut() {
			if s.Lasted > mostUncut {
				o.Uncut++
			}
			continue
		}
		if o.Cut++; o.Cut == 1 {
			o.FirstCut, o.How = s.At+s.CutAfter, s.How
		}
		o.LastCut = max(o.LastCut, s.CutAfter)
	}
}

// callLine marks a line of the agent's access log.
const callLine = "msg=call "

// readLog looks for a sample of the connections that were cut off.
func (o *outcome) readLog(lines []string, strikes []strikeReport) {
	perPeer := make(map[string]int)
	for _, line := range lines {
		peer := peerOf(line)
		switch {
		case peer == "":
			continue
		case strings.Contains(line, callLine):
			o.CallLines++
			continue
		case o.Line == "":
			o.Line = line
		}
		o.LinesOfHost++
		perPeer[peer]++
	}
	var cut []string
	for _, s := range strikes {
		if s.cut() {
			cut = append(cut, s.Peer)
		}
	}
	for i := 0; i < len(cut); i += max(1, len(cut)/logSample) {
		o.Sampled++
		switch n := perPeer[cut[i]]; {
		case n == 0:
			o.Unlogged++
		case n > 1:
			o.Repeated++
		}
	}
}

// peerOf returns the attacker's address in a line of the log, with the port
// where one stands there; empty: the line is not about the attacker.
func peerOf(line string) string {
	i := strings.Index(line, attackerHost)
	if i < 0 {
		return ""
	}
	rest := line[i+len(attackerHost):]
	if rest != "" && rest[0] >= '0' && rest[0] <= '9' {
		return "" // another host
	}
	digits := 0
	if strings.HasPrefix(rest, ":") {
		for digits++; digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9'; {
			digits++
		}
	}
	return attackerHost + rest[:digits]
}

// The relay's counters, and those of them that move with any traffic.
const relayCounters = "outrigger_relay_"

var (
	traffic         = []string{"outrigger_relay_calls_total", "outrigger_relay_bytes_total"}
	refusalCounters = "outrigger_refusals_total"
)

// moved compares two readings of the metrics: which counters of the relay say
// that something was wrong, and which refusals there were.
func moved(before, after map[string]float64) (relay, refusals []string) {
	for series, value := range after {
		grown := value - before[series]
		if grown <= 0 {
			continue
		}
		name, labels, _ := strings.Cut(series, "{")
		text := fmt.Sprintf("%s +%.0f", shortSeries(name, labels), grown)
		switch {
		case name == refusalCounters:
			refusals = append(refusals, text)
		case strings.HasPrefix(name, relayCounters) && strings.HasSuffix(name, "_total") && !slices.Contains(traffic, name):
			relay = append(relay, text)
		}
	}
	slices.Sort(relay)
	slices.Sort(refusals)
	return relay, refusals
}

// shortSeries leaves out of a series' name what all of them have.
func shortSeries(name, labels string) string {
	name = strings.TrimSuffix(strings.TrimPrefix(name, "outrigger_"), "_total")
	var kept []string
	for label := range strings.SplitSeq(strings.TrimSuffix(labels, "}"), ",") {
		if label != "" && !strings.HasPrefix(label, "otel_scope_") {
			kept = append(kept, strings.TrimPrefix(label, "outrigger_"))
		}
	}
	if len(kept) == 0 {
		return name
	}
	return name + "{" + strings.Join(kept, ",") + "}"
}
