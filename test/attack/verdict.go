package main

import (
	"fmt"
	"time"
)

// What an attack may do at most. The good client's share and times, the
// agent's memory and the time to the cut-off are the project's promise; the
// other two are how its operator learns of the attack.
const (
	leastSuccess  = 0.999
	mostGrowth    = 16 << 10 // KiB of resident memory
	mostUncut     = 5 * time.Second
	latencyFactor = 2                    // of the quiet p99, or
	latencyMargin = 5 * time.Millisecond // above it, whichever is more
	// crowdLines is how many log lines a crowd of connections of one peer may
	// cause: a line for each would be an attack on the log.
	crowdLines = 100
)

// verdictLatency is the verdict that other processes on the machine can break.
const verdictLatency = "p99"

// judge holds an outcome against the promise and returns what it breaks.
func judge(o *outcome) (failures []string) {
	fail := func(verdict, format string, arguments ...any) {
		failures = append(failures, verdict+": "+fmt.Sprintf(format, arguments...))
	}
	if !o.AgentAlive {
		fail("agent", "it ended during the attack")
	}
	if o.During.Calls == 0 {
		fail("success", "the good client made no call")
	} else if o.During.Success < leastSuccess {
		fail("success", "%d of %d good calls failed; the first: %s", o.During.Failed, o.During.Calls, o.During.Error)
	}
	if most := mostLatency(o.Quiet.P99); o.During.P99 > most {
		fail(verdictLatency, "%v, was %v when quiet; at most %v (past the agent: %v)", round(o.During.P99), round(o.Quiet.P99), round(most), round(o.Direct.P99))
	}
	if o.growth() > mostGrowth {
		fail("memory", "grew from %d to %d KiB; at most %d more", o.RSSBefore, o.RSSPeak, mostGrowth)
	}
	judgeCut(o, fail)
	judgeLog(o, fail)
	if len(o.Moved) == 0 {
		fail("metric", "no counter of the relay moved")
	}
	return failures
}

// mostLatency returns the p99 that is allowed beside an attack.
func mostLatency(quiet time.Duration) time.Duration {
	return max(latencyFactor*quiet, quiet+latencyMargin)
}

// judgeCut asks that every connection was cut off soon; of a crowd, that its
// first one was.
func judgeCut(o *outcome, fail func(verdict, format string, arguments ...any)) {
	switch {
	case o.Opened == 0:
		fail("cut off", "the attacker could not connect: %s", o.How)
	case o.Cut == 0:
		fail("cut off", "never, in %v", attackTime)
	case o.Crowd && o.FirstCut > mostUncut:
		fail("cut off", "the first connection after %v; at most %v", round(o.FirstCut), mostUncut)
	case o.Crowd:
	case o.Uncut > 0:
		fail("cut off", "%d of %d connections never", o.Uncut, o.Opened)
	case o.LastCut > mostUncut:
		fail("cut off", "after %v; at most %v", round(o.LastCut), mostUncut)
	}
}

// judgeLog asks for one line a connection that was cut off; of a crowd, for
// some that name the peer's host, but not for one each.
func judgeLog(o *outcome, fail func(verdict, format string, arguments ...any)) {
	if o.Crowd {
		if o.LinesOfHost == 0 || o.LinesOfHost > crowdLines {
			fail("log", "%d lines name %s; want 1 to %d", o.LinesOfHost, attackerHost, crowdLines)
		}
		return
	}
	switch {
	case o.Cut == 0:
		fail("log", "nothing to say, nothing was cut off")
	case o.Unlogged > 0:
		fail("log", "%d of %d connections that were cut off are in no line", o.Unlogged, o.Sampled)
	case o.Repeated > 0:
		fail("log", "%d of %d connections that were cut off are in more than one line", o.Repeated, o.Sampled)
	}
}
