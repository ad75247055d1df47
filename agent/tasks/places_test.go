package tasks

import "testing"

func TestPlacesAreTakenUntilGivenBack(t *testing.T) {
	var p places
	waiting := func(string) int { return 7 }
	capacity := func(string) int { return 10 }
	for i, step := range []struct {
		take, give map[string]int
		ok         bool
	}{
		{take: map[string]int{"mail": 2}, ok: true},
		{take: map[string]int{"mail": 2}}, // 7 + 2 + 2
		{take: map[string]int{"mail": 1}, ok: true},
		{take: map[string]int{"mail": 1}},
		{take: map[string]int{"mail": 1, "other": 1}}, // all or none
		{take: map[string]int{"other": 3}, ok: true},
		{give: map[string]int{"mail": 3}},
		{take: map[string]int{"mail": 4}},
		{take: map[string]int{"mail": 3}, ok: true},
		{take: map[string]int{}, ok: true},
	} {
		if step.give != nil {
			p.give(step.give)
			continue
		}
		full, ok := p.take(step.take, capacity, waiting)
		if ok != step.ok || (full == "") != ok {
			t.Errorf("step %d: take(%v) = %q, %v", i, step.take, full, ok)
		}
	}
}
