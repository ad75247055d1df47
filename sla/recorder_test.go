package sla

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

func TestSpans(t *testing.T) {
	want := []time.Duration{10 * time.Second, time.Minute, 5 * time.Minute, time.Hour}
	if got := Spans(); !slices.Equal(got, want) {
		t.Errorf("Spans() = %v", got)
	}
}

func TestEachOutcomeCountsWhereItShould(t *testing.T) {
	// Given one success, two failures, three unavailable and four excluded, and
	// a stream of each outcome.
	r := NewRecorder(Options{})
	now := 5 * time.Second
	for o := Success; o <= Excluded; o++ {
		for range o + 1 {
			r.Record(now, o, 10*ms)
		}
		r.RecordUntimed(now, o)
	}
	for name, got := range map[string]Totals{"window": r.Read(now, time.Minute), "lifetime": r.Lifetime()} {
		// Then each total has its calls and its stream.
		if got.Successes != 2 || got.Failures != 3 || got.Unavailable != 4 || got.Excluded != 5 || got.Calls != 14 {
			t.Errorf("%s: %+v", name, got)
		}
		if got.Counted() != 9 || got.Answered() != 5 {
			t.Errorf("%s: %d counted, %d answered", name, got.Counted(), got.Answered())
		}
		// And latency is of the calls only, without the excluded.
		if got.Latency.Count() != 6 || got.Latency.Unanswered() != 3 || got.Latency.Sum() != 60*ms {
			t.Errorf("%s: %d latencies, %d unanswered, %v in all", name, got.Latency.Count(), got.Latency.Unanswered(), got.Latency.Sum())
		}
	}
}

func TestAnUnknownOutcomeIsExcluded(t *testing.T) {
	r := NewRecorder(Options{})
	r.Record(0, Excluded+1, ms)
	r.RecordUntimed(0, 255)
	if got := r.Lifetime(); got.Excluded != 2 || got.Calls != 2 || got.Latency.Count() != 0 {
		t.Errorf("%+v", got)
	}
}

func TestACallLeavesOneWindowAfterTheOther(t *testing.T) {
	// Given one call at 1 h 2 min 3.5 s.
	r := NewRecorder(Options{})
	at := time.Hour + 2*time.Minute + 3500*ms
	r.Record(at, Success, 7*ms)
	for _, c := range []struct {
		after time.Duration
		want  [4]uint64 // in 10 s, 1 min, 5 min, 1 h
	}{
		{0, [4]uint64{1, 1, 1, 1}},
		{9 * time.Second, [4]uint64{1, 1, 1, 1}},
		{10 * time.Second, [4]uint64{0, 1, 1, 1}},
		{56400 * ms, [4]uint64{0, 1, 1, 1}}, // its slice began at 2 min 0 s
		{56500 * ms, [4]uint64{0, 0, 1, 1}},
		{296400 * ms, [4]uint64{0, 0, 1, 1}},
		{296500 * ms, [4]uint64{0, 0, 0, 1}},
		{57*time.Minute + 56400*ms, [4]uint64{0, 0, 0, 1}},
		{57*time.Minute + 56500*ms, [4]uint64{0, 0, 0, 0}},
	} {
		var got [4]uint64
		for i, span := range Spans() {
			totals := r.Read(at+c.after, span)
			got[i] = totals.Calls
			if totals.Latency.Count() != totals.Calls {
				t.Errorf("after %v: %d latencies of %d calls", c.after, totals.Latency.Count(), totals.Calls)
			}
		}
		if got != c.want {
			t.Errorf("after %v the windows hold %v, want %v", c.after, got, c.want)
		}
	}
	if got := r.Lifetime(); got.Calls != 1 {
		t.Errorf("lifetime: %d calls", got.Calls)
	}
}

func TestSpanSaysWhatWasCovered(t *testing.T) {
	r := NewRecorder(Options{Start: 100 * time.Second})
	for _, c := range []struct {
		name            string
		now, span, want time.Duration
	}{
		{"before the start", 90 * time.Second, 10 * time.Second, 0},
		{"younger than the window", 103 * time.Second, time.Minute, 3 * time.Second},
		{"at a slice's begin", 1000 * time.Second, 10 * time.Second, 9 * time.Second},
		{"at a slice's end", 1000900 * ms, 10 * time.Second, 9900 * ms},
		{"another span is the next longer one", 10000 * time.Second, 2 * time.Minute, 4*time.Minute + 40*time.Second},
		{"the longest", 7200 * time.Second, 24 * time.Hour, 55 * time.Minute},
	} {
		if got := r.Read(c.now, c.span).Span; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestNowMayBeOutOfOrder(t *testing.T) {
	// Given a call at 20 s.
	r := NewRecorder(Options{})
	r.Record(20*time.Second, Success, ms)
	// When others come in whose clocks are behind, and one from before the origin.
	r.Record(19900*ms, Success, ms)
	r.Record(18*time.Second, Failure, ms)
	r.Record(-time.Second, Failure, ms)
	// Then they count with the newest, and a reader from the past sees the same.
	for _, now := range []Instant{-time.Second, 19 * time.Second, 20 * time.Second, 29 * time.Second} {
		if got := r.Read(now, 10*time.Second); got.Calls != 4 {
			t.Errorf("at %v: %d calls", now, got.Calls)
		}
	}
	if got := r.Read(30*time.Second, 10*time.Second); got.Calls != 0 {
		t.Errorf("at 30s: %d calls", got.Calls)
	}
}

func TestALongGap(t *testing.T) {
	// Given calls, and then none for 40 days.
	r := NewRecorder(Options{})
	for range 1000 {
		r.Record(time.Second, Success, ms)
	}
	later := 40 * 24 * time.Hour
	// When one comes in.
	r.Record(later, Failure, ms)
	// Then windows hold that one, and the lifetime all.
	for _, span := range Spans() {
		if got := r.Read(later, span); got.Calls != 1 || got.Failures != 1 {
			t.Errorf("%v: %d calls, %d failures", span, got.Calls, got.Failures)
		}
	}
	if got := r.Lifetime(); got.Calls != 1001 {
		t.Errorf("lifetime: %d calls", got.Calls)
	}
}

// modelled is a call that the model remembers by itself.
type modelled struct {
	at      Instant
	outcome Outcome
	latency time.Duration
}

func TestWindowsAgreeWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := NewRecorder(Options{})
		var calls []modelled
		var now Instant
		t.Repeat(map[string]func(*rapid.T){
			"a moment passes": func(t *rapid.T) { now += time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "d")) },
			"minutes pass":    func(t *rapid.T) { now += time.Duration(rapid.Int64Range(0, int64(7*time.Minute)).Draw(t, "d")) },
			"hours pass":      func(t *rapid.T) { now += time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(t, "d")) },
			"calls end": func(t *rapid.T) {
				c := modelled{now, Outcome(rapid.IntRange(0, 3).Draw(t, "outcome")), anyLatency().Draw(t, "latency")}
				for range rapid.IntRange(1, 3).Draw(t, "calls") {
					r.Record(c.at, c.outcome, c.latency)
					calls = append(calls, c)
				}
			},
			"": func(t *rapid.T) {
				for k, tier := range tiers {
					// A window holds the calls of its tier's last slices.
					first := Instant(tier.number(now)-int64(tier.keep)+1) * tier.width
					compare(t, r.Read(now, tier.span()), calls, first)
					if got := r.Read(now, tier.span()).Span; got != now-max(first, 0) || got > tier.span() {
						t.Fatalf("tier %d covers %v", k, got)
					}
				}
				compare(t, r.Lifetime(), calls, 0)
			},
		})
	})
}

// compare sets totals against the calls since first.
func compare(t *rapid.T, got Totals, calls []modelled, first Instant) {
	t.Helper()
	var want [numOutcomes]uint64
	var answered, unanswered []time.Duration
	var sum time.Duration
	for _, c := range calls {
		if c.at < first {
			continue
		}
		want[c.outcome]++
		switch c.outcome {
		case Excluded:
			continue
		case Unavailable:
			unanswered = append(unanswered, c.latency)
		default:
			answered = append(answered, c.latency)
		}
		sum += c.latency
	}
	if g := [numOutcomes]uint64{got.Successes, got.Failures, got.Unavailable, got.Excluded}; g != want {
		t.Fatalf("since %v: %v, want %v", first, g, want)
	}
	if got.Latency.Sum() != sum {
		t.Fatalf("since %v: waited %v, want %v", first, got.Latency.Sum(), sum)
	}
	for _, q := range []float64{0, 0.5, 0.95, 1} {
		if g, exact := got.Latency.Quantile(q), exactQuantile(answered, unanswered, q); !within1Percent(g, exact) {
			t.Fatalf("since %v: p%v is %v, exactly %v", first, 100*q, g, exact)
		}
	}
}

func TestCountersSurviveTheirOverflow(t *testing.T) {
	// Given counters close to the end of their 32 bits.
	r := NewRecorder(Options{})
	r.Record(0, Success, ms)
	bucket := bucketOf(ms)
	for i := range r.counters.stripes {
		allocate(&r.counters.stripes[i].timed[Success][bucket>>blockBits])[bucket&(blockLen-1)].Add(math.MaxUint32 - 1)
	}
	r.Read(time.Second, time.Minute)
	before := r.Lifetime()
	// When they wrap around.
	for i := range 10 {
		r.Record(time.Duration(2+i)*time.Second, Success, ms)
	}
	// Then totals go on.
	if got := r.Lifetime(); got.Calls != before.Calls+10 || got.Latency.Count() != before.Latency.Count()+10 {
		t.Errorf("from %d to %d calls, %d latencies", before.Calls, got.Calls, got.Latency.Count())
	}
	if got := r.Read(11*time.Second, 10*time.Second); got.Calls != 10 {
		t.Errorf("the window holds %d calls", got.Calls)
	}
}
