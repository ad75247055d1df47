package telemetry

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// collection gathers the points of one reading, by instrument, in the order in
// which instruments first occur. An instrument without a point is left out.
type collection struct {
	start, now time.Time
	metrics    []metricdata.Metrics
	index      map[string]int
}

func newCollection(start, now time.Time) *collection {
	return &collection{start: start, now: now, index: make(map[string]int)}
}

// slot returns the instrument's place, made with what empty returns if new.
func (c *collection) slot(i instrument, empty metricdata.Aggregation) *metricdata.Metrics {
	at, ok := c.index[i.name]
	if !ok {
		at = len(c.metrics)
		c.index[i.name] = at
		c.metrics = append(c.metrics, metricdata.Metrics{Name: i.name, Unit: i.unit, Description: i.help, Data: empty})
	}
	return &c.metrics[at]
}

// counter adds a point of a total that only grows.
func (c *collection) counter(i instrument, total uint64, attributes ...attribute.KeyValue) {
	m := c.slot(i, metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true})
	sum := m.Data.(metricdata.Sum[int64])
	sum.DataPoints = append(sum.DataPoints, c.intPoint(int64(total), attributes))
	m.Data = sum
}

// seconds adds a point of a total of seconds that only grows.
func (c *collection) seconds(i instrument, total float64, attributes ...attribute.KeyValue) {
	m := c.slot(i, metricdata.Sum[float64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: true})
	sum := m.Data.(metricdata.Sum[float64])
	sum.DataPoints = append(sum.DataPoints, metricdata.DataPoint[float64]{
		Attributes: attribute.NewSet(attributes...), StartTime: c.start, Time: c.now, Value: total,
	})
	m.Data = sum
}

// level adds a point of a count that grows and shrinks: levels of several
// agents add up.
func (c *collection) level(i instrument, value int64, attributes ...attribute.KeyValue) {
	m := c.slot(i, metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality})
	sum := m.Data.(metricdata.Sum[int64])
	sum.DataPoints = append(sum.DataPoints, c.intPoint(value, attributes))
	m.Data = sum
}

// gauge adds a point of a figure that must not be added up.
func (c *collection) gauge(i instrument, value float64, attributes ...attribute.KeyValue) {
	m := c.slot(i, metricdata.Gauge[float64]{})
	gauge := m.Data.(metricdata.Gauge[float64])
	gauge.DataPoints = append(gauge.DataPoints, metricdata.DataPoint[float64]{
		Attributes: attribute.NewSet(attributes...), Time: c.now, Value: value,
	})
	m.Data = gauge
}

// oneOf adds a point for every state: 1 for the present one, 0 for the others.
// Each state is a series of its own, so that a change is seen whichever state
// is looked at.
func (c *collection) oneOf(i instrument, key attribute.Key, states []string, present string, attributes ...attribute.KeyValue) {
	for _, state := range states {
		value := 0.0
		if state == present {
			value = 1
		}
		point := append(append(make([]attribute.KeyValue, 0, len(attributes)+1), attributes...), key.String(state))
		c.gauge(i, value, point...)
	}
}

// histogram adds a point of a distribution. counts has one more than bounds.
func (c *collection) histogram(i instrument, bounds []float64, counts []uint64, count uint64, sum float64, attributes ...attribute.KeyValue) {
	m := c.slot(i, metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality})
	h := m.Data.(metricdata.Histogram[float64])
	h.DataPoints = append(h.DataPoints, metricdata.HistogramDataPoint[float64]{
		Attributes: attribute.NewSet(attributes...), StartTime: c.start, Time: c.now,
		Bounds: bounds, BucketCounts: counts, Count: count, Sum: sum,
	})
	m.Data = h
}

func (c *collection) intPoint(value int64, attributes []attribute.KeyValue) metricdata.DataPoint[int64] {
	return metricdata.DataPoint[int64]{
		Attributes: attribute.NewSet(attributes...), StartTime: c.start, Time: c.now, Value: value,
	}
}
