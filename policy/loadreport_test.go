package policy

import (
	"encoding/base64"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// encodeLoad encodes an OrcaLoadReport as a server does: with what weights are
// not made from among it.
func encodeLoad(r balancer.LoadReport) []byte {
	var b []byte
	double := func(number protowire.Number, value float64) {
		if value != 0 {
			b = protowire.AppendTag(b, number, protowire.Fixed64Type)
			b = protowire.AppendFixed64(b, math.Float64bits(value))
		}
	}
	double(1, r.CPUUtilization)
	double(2, 0.9) // mem_utilization
	b = protowire.AppendTag(b, 3, protowire.VarintType)
	b = protowire.AppendVarint(b, 300) // rps
	entry := protowire.AppendTag(nil, 1, protowire.BytesType)
	entry = protowire.AppendString(entry, "queue_depth")
	entry = protowire.AppendTag(entry, 2, protowire.Fixed64Type)
	entry = protowire.AppendFixed64(entry, math.Float64bits(12))
	b = protowire.AppendTag(b, 8, protowire.BytesType) // named_metrics
	b = protowire.AppendBytes(b, entry)
	double(6, r.QPS)
	double(7, r.EPS)
	double(9, r.ApplicationUtilization)
	return b
}

var someLoad = balancer.LoadReport{QPS: 120.5, EPS: 3, ApplicationUtilization: 0.25, CPUUtilization: 1.5}

func TestABinaryReportIsRead(t *testing.T) {
	encoded := encodeLoad(someLoad)
	if r, ok := ParseLoadReport(encoded); !ok || r != someLoad {
		t.Errorf("bytes: %+v, %v", r, ok)
	}
	if r, ok := ParseLoadReport(string(encoded)); !ok || r != someLoad {
		t.Errorf("string: %+v, %v", r, ok)
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding} {
		if r, ok := (LoadReportHeaders{Binary: encoding.EncodeToString(encoded)}).Parse(); !ok || r != someLoad {
			t.Errorf("base64: %+v, %v", r, ok)
		}
	}
	if r, ok := ParseLoadReport(""); !ok || r != (balancer.LoadReport{}) {
		t.Errorf("an empty report: %+v, %v", r, ok)
	}
}

func TestABrokenBinaryReportIsNone(t *testing.T) {
	encoded := encodeLoad(someLoad)
	for name, b := range map[string]string{
		"cut off in a number":     string(encoded[:len(encoded)-1]),
		"a tag alone":             "\x09",
		"a field number of 0":     "\x00\x00",
		"a length beyond the end": "\x42\x7f",
		"a group":                 "\x0b\x0c",
		"a varint of 11 bytes":    "\x18" + strings.Repeat("\x80", 10) + "\x01",
		"more than 64 bits":       "\x18" + strings.Repeat("\xff", 9) + "\x02",
		"longer than 8 KiB":       strings.Repeat("\x18\x01", 4097),
	} {
		if r, ok := ParseLoadReport(b); ok || r != (balancer.LoadReport{}) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for _, s := range []string{"!", "Zm9v=YmFy", strings.Repeat("A", 8<<10+1), "CQ, CQ"} {
		if _, ok := (LoadReportHeaders{Binary: s}).Parse(); ok {
			t.Errorf("%.20q was read", s)
		}
	}
}

func TestTheFormsOfTheTextHeader(t *testing.T) {
	binary := base64.StdEncoding.EncodeToString(encodeLoad(someLoad))
	for s, want := range map[string]balancer.LoadReport{
		"TEXT cpu_utilization=0.3, mem_utilization=0.8, rps_fractional=10.0, eps=1, named_metrics.queue=0.4": {CPUUtilization: 0.3, QPS: 10, EPS: 1},
		"TEXT application_utilization:0.5,rps_fractional : 7e1":                                              {ApplicationUtilization: 0.5, QPS: 70},
		`JSON {"cpu_utilization": 0.3, "rps_fractional": 10, "eps": 1, "named_metrics": {"queue": 0.4}}`:     {CPUUtilization: 0.3, QPS: 10, EPS: 1},
		`JSON {"cpuUtilization": "0.3", "applicationUtilization": 0.5, "rpsFractional": 10}`:                 {CPUUtilization: 0.3, ApplicationUtilization: 0.5, QPS: 10},
		"BIN " + binary: someLoad,
	} {
		if r, ok := (LoadReportHeaders{Text: s}).Parse(); !ok || r != want {
			t.Errorf("%s: %+v, %v; want %+v", s, r, ok, want)
		}
	}
}

func TestATextHeaderThatCanNotBeReadIsNoReport(t *testing.T) {
	for _, s := range []string{
		"", "cpu_utilization=0.3", "TEXT", "TEXT cpu_utilization", "TEXT cpu_utilization=", "TEXT cpu_utilization=half", "text eps=1",
		"JSON", "JSON null", "JSON []", `JSON {"eps": true}`, `JSON {"eps": "one"}`, `JSON {"eps": 1`, "BIN ?", "TEXT eps=1" + strings.Repeat(" ", 8<<10),
	} {
		if r, ok := (LoadReportHeaders{Text: s}).Parse(); ok || r != (balancer.LoadReport{}) {
			t.Errorf("%.40q: %+v", s, r)
		}
	}
}

func TestTheBinaryHeaderWins(t *testing.T) {
	h := LoadReportHeaders{Binary: base64.StdEncoding.EncodeToString(encodeLoad(someLoad)), Text: "TEXT eps=1"}
	if r, ok := h.Parse(); !ok || r != someLoad {
		t.Errorf("%+v, %v", r, ok)
	}
}

func TestReadingABinaryReportAllocatesNothing(t *testing.T) {
	h := LoadReportHeaders{Binary: base64.StdEncoding.EncodeToString(encodeLoad(someLoad))}
	if n := testing.AllocsPerRun(1000, func() { _, _ = h.Parse() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzLoadReport compares with protobuf's own parser of the wire.
func FuzzLoadReport(f *testing.F) {
	f.Add(encodeLoad(someLoad))
	f.Add([]byte("\x09\x00\x00\x00\x00\x00\x00\xe0\x3f\x0b\x0c"))
	f.Add([]byte("\x18" + strings.Repeat("\xff", 9) + "\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := ParseLoadReport(b)
		text, okText := ParseLoadReport(string(b))
		want, valid := balancer.LoadReport{}, len(b) <= maxLoadReport
		for rest := b; valid && len(rest) > 0; {
			number, kind, n := protowire.ConsumeTag(rest)
			if n < 0 || number > protowire.MaxValidNumber || kind == protowire.StartGroupType || kind == protowire.EndGroupType {
				valid = false
				break
			}
			rest = rest[n:]
			if n = protowire.ConsumeFieldValue(number, kind, rest); n < 0 {
				valid = false
				break
			}
			if kind == protowire.Fixed64Type {
				bits, _ := protowire.ConsumeFixed64(rest)
				set(&want, uint64(number), math.Float64frombits(bits))
			}
			rest = rest[n:]
		}
		if !valid {
			want = balancer.LoadReport{}
		}
		if ok != valid || okText != valid || !same(got, want) || !same(text, want) {
			t.Errorf("%x: %+v, %v; want %+v, %v", b, got, ok, want, valid)
		}
	})
}

// same compares bit by bit: a number may be none.
func same(a, b balancer.LoadReport) bool {
	eq := func(x, y float64) bool { return math.Float64bits(x) == math.Float64bits(y) }
	return eq(a.QPS, b.QPS) && eq(a.EPS, b.EPS) && eq(a.CPUUtilization, b.CPUUtilization) && eq(a.ApplicationUtilization, b.ApplicationUtilization)
}

// FuzzLoadReportText: no text breaks it, and none does anything but be read or
// not.
func FuzzLoadReportText(f *testing.F) {
	f.Add("TEXT cpu_utilization=0.3, rps_fractional=10")
	f.Add(`JSON {"cpuUtilization": "0.3", "rps_fractional": 10}`)
	f.Add("BIN CQAAAAAAAOA/")
	f.Fuzz(func(t *testing.T, s string) {
		r, ok := ParseLoadReportText(s)
		if !ok && r != (balancer.LoadReport{}) {
			t.Errorf("%q: %+v of what can't be read", s, r)
		}
	})
}

func BenchmarkLoadReport(b *testing.B) { // budget: 150 ns, 0 allocs
	h := LoadReportHeaders{Binary: base64.StdEncoding.EncodeToString(encodeLoad(someLoad))}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := h.Parse(); !ok {
			b.Fatal("not read")
		}
	}
}

func TestReportsWeighEndpoints(t *testing.T) {
	// Given a service that is balanced by reports, and one that is not,
	byReports := balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}}
	s := newTestService(Policy{LoadBalancing: byReports}, "a:1", "b:1")
	s.Update(Settings{Policy: Policy{LoadBalancing: byReports}, Methods: map[string]Policy{"/other/": {}}})
	report := func(method string, use float64) (wanted bool) {
		var c Call
		var a Attempt
		if r := begin(&c, s.Method(method), start, noTime, 1); r != nil {
			t.Fatal(r)
		}
		if r := c.Pick(start, 1, &a); r != nil {
			t.Fatal(r)
		}
		if a.Endpoint.Address() == "b:1" {
			use /= 3
		}
		c.ReportLoad(&a, start, balancer.LoadReport{QPS: 100, CPUUtilization: use})
		c.Settle(&a, start, Result{}, 1)
		c.End(start, Result{}, 1)
		return c.WantsLoad()
	}
	// when a call that is not reports, then nobody listens;
	if report("/other/Method", 0.3) || s.ReportedWeight(s.Endpoints().Find("a:1"), start) != 0 || s.ReportedWeight(s.Endpoints().Find("b:1"), start) != 0 {
		t.Error("a report where nobody balances by it")
	}
	// when two calls report that b bears three times as much as a,
	for range 2 {
		if !report(hello, 0.3) {
			t.Error("nobody wants the report")
		}
	}
	// then b gets three times as many.
	got := map[string]int{}
	for range 4000 {
		endpoint, _ := one(t, s, start+time.Second, Result{})
		got[endpoint]++
	}
	if got["a:1"] != 1000 || got["b:1"] != 3000 {
		t.Errorf("%v", got)
	}
	if w := s.ReportedWeight(s.Endpoints().Find("b:1"), start+time.Second); math.Abs(w-1000) > 1e-6 {
		t.Errorf("b's weight is %v", w)
	}
}

func TestAnAttemptWithoutAnEndpointReportsNothing(t *testing.T) {
	s := newTestService(Policy{LoadBalancing: balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true}}})
	var c Call
	var a Attempt
	if r := begin(&c, s.Method(hello), start, noTime, 1); r != nil {
		t.Fatal(r)
	}
	if r := c.Send(start, 1, &a); r != nil {
		t.Fatal(r)
	}
	c.ReportLoad(&a, start, someLoad) // does not panic
	c.Settle(&a, start, Result{}, 1)
	c.End(start, Result{}, 1)
}
