package balancer

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestSharesOfZones(t *testing.T) {
	for _, c := range []struct {
		about string
		zones []capacity
		want  []float64
	}{
		{"all fit", []capacity{{3, 3}, {3, 3}, {3, 3}}, []float64{1, 0, 0}},
		{"another zone is ill", []capacity{{3, 3}, {3, 0}, {3, 3}}, []float64{1, 0, 0}},
		{"one of three is ill here", []capacity{{3, 2}, {3, 3}, {3, 3}}, []float64{0.75, 0.125, 0.125}},
		{"all are ill here", []capacity{{3, 0}, {3, 3}, {3, 3}}, []float64{0, 0.5, 0.5}},
		{"one other has more to spare", []capacity{{4, 2}, {4, 4}, {4, 3}}, []float64{2.0 / 3, 1.0 / 3, 0}},
		{"a small zone", []capacity{{1, 1}, {9, 9}}, []float64{1, 0}},
		{"none is fit anywhere", []capacity{{3, 0}, {3, 0}}, nil},
	} {
		got := zoneShares(c.zones, 0)
		if len(got) != len(c.want) {
			t.Errorf("%s: %v", c.about, got)
			continue
		}
		for i := range got {
			if math.Abs(got[i]-c.want[i]) > 1e-9 {
				t.Errorf("%s: %v; want %v", c.about, got, c.want)
			}
		}
	}
}

func TestZonesTogetherLoadAllThatIsFitAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var zones []capacity
		all, fit := 0.0, 0.0
		for range rapid.IntRange(1, 6).Draw(t, "zones") {
			n := rapid.IntRange(1, 20).Draw(t, "all")
			z := capacity{float64(n), float64(rapid.IntRange(0, n).Draw(t, "fit"))}
			zones = append(zones, z)
			all, fit = all+z.all, fit+z.fit
		}
		if fit == 0 {
			return
		}
		// Given callers in each zone as its endpoints, then what all of them send
		// to a zone is its part of what is fit.
		got := make([]float64, len(zones))
		for local, z := range zones {
			sum := 0.0
			for i, s := range zoneShares(zones, local) {
				got[i] += z.all / all * s
				sum += s
			}
			if math.Abs(sum-1) > 1e-9 {
				t.Fatalf("callers of zone %d send %v in all", local, sum)
			}
		}
		for i, z := range zones {
			if math.Abs(got[i]-z.fit/fit) > 1e-9 {
				t.Fatalf("zone %d of %v gets %v; want %v", i, zones, got[i], z.fit/fit)
			}
		}
	})
}

func zoned(sizes map[string]int) *Set {
	var all []Spec
	for _, zone := range []string{"a", "b", "c"} {
		for i := range sizes[zone] {
			all = append(all, Spec{Address: fmt.Sprintf("%s%d:1", zone, i), Zone: zone})
		}
	}
	set, _ := (&Set{}).With(all)
	return set
}

func TestCallsStayInTheirZoneAsLongAsItBearsThem(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := zoned(map[string]int{"a": 3, "b": 3, "c": 3}), NewPicker(Options{Policy: p, ZoneAware: true, Zone: "a"})
		local := func() int {
			n := shares(picker, set, 10_000, nil)
			return n[0] + n[1] + n[2]
		}
		if n := local(); n != 10_000 {
			t.Errorf("%v: all fit, and %d of 10,000 stayed", p, n)
		}
		set.All()[0].SetHealthy(false, "status 500", 1)
		if n := local(); n < 7300 || n > 7700 {
			t.Errorf("%v: one of three ill, and %d of 10,000 stayed; want 75 %%", p, n)
		}
		if s := picker.Snapshot(set).Priorities[0]; s.Local != 0.75 {
			t.Errorf("%v: %+v", p, s)
		}
		set.All()[1].SetHealthy(false, "status 500", 1)
		set.All()[2].SetHealthy(false, "status 500", 1)
		if n := local(); n != 0 {
			t.Errorf("%v: all ill, and %d of 10,000 stayed", p, n)
		}
	}
}

func TestZonesThatAreNotToldApart(t *testing.T) {
	for about, c := range map[string]struct {
		options Options
		ill     int
	}{
		"not asked for":           {Options{Zone: "a"}, 0},
		"the caller's is unknown": {Options{ZoneAware: true}, 0},
		"nobody is in it":         {Options{ZoneAware: true, Zone: "z"}, 0},
		"too few are fit there":   {Options{ZoneAware: true, Zone: "a", MinZonePercent: 70}, 1},
	} {
		set := zoned(map[string]int{"a": 3, "b": 3, "c": 3})
		for _, e := range set.All()[:c.ill] {
			e.SetHealthy(false, "status 500", 1)
		}
		fit := 9 - c.ill
		for i, n := range shares(NewPicker(c.options), set, 9000, nil) {
			if want := 9000 / fit; i >= c.ill && math.Abs(float64(n-want)) > 150 {
				t.Errorf("%s: endpoint %d got %d; want %d", about, i, n, want)
			}
		}
	}
}
