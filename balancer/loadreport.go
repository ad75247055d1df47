package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// Defaults of LoadReports, those of gRFC A58. Blackout and penalty are not what
// zero stands for, but what policies have where nothing is written.
const (
	DefaultBlackoutPeriod          = 10 * time.Second
	DefaultWeightExpirationPeriod  = 3 * time.Minute
	DefaultWeightUpdatePeriod      = time.Second
	DefaultErrorUtilizationPenalty = 1.0
	// MinWeightUpdatePeriod is how often weights are looked up at most.
	MinWeightUpdatePeriod = 100 * time.Millisecond
)

// LoadReports say how WEIGHTED_ROUND_ROBIN weighs endpoints by what they report
// of their load (gRFC A58). The zero value is off.
//
// An endpoint's weight is qps / (utilization + eps/qps × penalty): how many
// requests it would serve if it were fully used. Of the endpoints that calls are
// spread over, those without a weight of their own get the mean of the others.
// Where fewer than two have one, all have the weight that Spec says.
type LoadReports struct {
	// On turns them on.
	On bool
	// BlackoutPeriod is how long an endpoint has to report before its weight
	// counts: after its first report, after a new connection, and after it fell
	// silent. Zero: it counts at once.
	BlackoutPeriod time.Duration
	// WeightExpirationPeriod is how long a report counts that no other follows.
	// Zero: 3 min.
	WeightExpirationPeriod time.Duration
	// WeightUpdatePeriod is how often weights are looked up; a pick after it
	// does so. Zero: 1 s; less than 100 ms: that.
	WeightUpdatePeriod time.Duration
	// ErrorUtilizationPenalty is how much utilization a share of errors of 1
	// counts as. Zero: errors do not count.
	ErrorUtilizationPenalty float64
}

func (o LoadReports) withDefaults() LoadReports {
	if o.WeightExpirationPeriod <= 0 {
		o.WeightExpirationPeriod = DefaultWeightExpirationPeriod
	}
	if o.WeightUpdatePeriod <= 0 {
		o.WeightUpdatePeriod = DefaultWeightUpdatePeriod
	}
	o.WeightUpdatePeriod = max(o.WeightUpdatePeriod, MinWeightUpdatePeriod)
	if !(o.ErrorUtilizationPenalty > 0) {
		o.ErrorUtilizationPenalty = 0
	}
	return o
}

// LoadReport is what an endpoint reports of itself: the fields of
// xds.data.orca.v3.OrcaLoadReport that weights are made from. What it does not
// say is zero.
type LoadReport struct {
	// QPS and EPS are the requests and errors a second that the endpoint
	// serves, all callers' together (rps_fractional, eps).
	QPS, EPS float64
	// ApplicationUtilization is the part of its capacity that is used, as the
	// application sees it. Zero: CPUUtilization stands for it.
	ApplicationUtilization, CPUUtilization float64
}

// utilization returns the one that counts.
func (r LoadReport) utilization() float64 {
	if r.ApplicationUtilization > 0 {
		return r.ApplicationUtilization
	}
	return r.CPUUtilization
}

// usable reports whether a weight can be made of the report.
func (r LoadReport) usable() bool {
	u := r.utilization()
	return u > 0 && r.QPS > 0 && !math.IsInf(u, 1) && !math.IsInf(r.QPS, 1) && !math.IsInf(r.EPS, 1) && !math.IsNaN(r.EPS)
}

// reported is what is remembered of an endpoint's reports. The zero value has
// seen none. Safe for concurrent use; what two reports at one moment leave may
// be the one's utilization beside the other's errors.
type reported struct {
	// used and errors are float64 of what a request costs, from which each
	// picker makes a weight with its own penalty: 1/weight = util/qps +
	// penalty × eps/qps². used is zero where no report was usable.
	used   atomic.Uint64
	errors atomic.Uint64
	// since is when the reports began that have come without a gap; zero: the
	// next one begins them.
	since atomic.Int64
	last  atomic.Int64
}

// take remembers a usable report.
func (r *reported) take(now Instant, report LoadReport, expiration time.Duration) {
	instant := int64(max(now, 1))
	if last := r.last.Load(); r.since.Load() == 0 || instant-last >= int64(expiration) {
		r.since.Store(instant)
		r.last.Store(instant)
	} else if instant > last {
		r.last.Store(instant)
	}
	errors := max(report.EPS, 0) / report.QPS / report.QPS
	r.errors.Store(math.Float64bits(min(errors, math.MaxFloat32)))
	r.used.Store(math.Float64bits(min(max(report.utilization()/report.QPS, math.SmallestNonzeroFloat32), math.MaxFloat32)))
}

// begin says that the endpoint is a new one as far as blackouts go.
func (r *reported) begin() { r.since.Store(0) }

// weight returns the weight by the reports; zero: none counts now.
func (r *reported) weight(now Instant, o *LoadReports) float64 {
	used := math.Float64frombits(r.used.Load())
	if used == 0 || now-Instant(r.last.Load()) >= o.WeightExpirationPeriod {
		return 0
	}
	if since := r.since.Load(); o.BlackoutPeriod > 0 && (since == 0 || now-Instant(since) < o.BlackoutPeriod) {
		return 0
	}
	return 1 / (used + math.Float64frombits(r.errors.Load())*o.ErrorUtilizationPenalty)
}

// Reports reports whether the picker's calls are to tell what endpoints report.
func (p *Picker) Reports() bool { return p.options.LoadReports.On }

// Report takes what an endpoint reported with an answer. A report that no
// weight can be made of, and any where LoadReports are off, changes nothing. It
// allocates nothing and waits for no lock.
func (p *Picker) Report(e *Endpoint, now Instant, r LoadReport) { // budget: 60 ns, 0 allocs
	if o := &p.options.LoadReports; o.On && r.usable() {
		e.reported.take(now, r, o.WeightExpirationPeriod)
	}
}

// ReportedWeight returns the weight that the endpoint's reports give it now, in
// requests a second at full use. Zero: none counts.
func (p *Picker) ReportedWeight(e *Endpoint, now Instant) float64 {
	if o := &p.options.LoadReports; o.On {
		return e.reported.weight(now, o)
	}
	return 0
}

// heaviest is what the greatest reported weight is scaled to, as in gRPC's
// implementations: ratios are exact to 1/65535 of it.
const heaviest = math.MaxUint16

// reportedWeights returns the endpoints' weights by their reports; nil: fewer
// than two have one.
func reportedWeights(endpoints []*Endpoint, now Instant, o *LoadReports) []uint32 {
	exact := make([]float64, len(endpoints))
	most, sum, n := 0.0, 0.0, 0
	for i, e := range endpoints {
		if w := e.reported.weight(now, o); w > 0 {
			exact[i] = w
			most, sum, n = max(most, w), sum+w, n+1
		}
	}
	if n < 2 {
		return nil
	}
	mean := sum / float64(n)
	weights := make([]uint32, len(endpoints))
	for i, w := range exact {
		if w == 0 {
			w = mean
		}
		weights[i] = max(uint32(math.Round(w/most*heaviest)), 1)
	}
	return weights
}
