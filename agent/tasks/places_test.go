package tasks

import "testing"

func TestPlacesAreTakenUntilGivenBack(t *testing.T) {
	var p places
	waiting := func(string) int { return 7 } // of 10
	for i, step := range []struct {
		take, give int
		ok         bool
	}{
		{take: 2, ok: true},
		{take: 2, ok: false}, // 7 + 2 + 2
		{take: 1, ok: true},
		{take: 1, ok: false},
		{give: 3},
		{take: 4, ok: false},
		{take: 3, ok: true},
	} {
		if step.give > 0 {
			p.give("mail", step.give)
			continue
		}
		if got := p.take("mail", step.take, 10, waiting); got != step.ok {
			t.Errorf("step %d: take(%d) = %v", i, step.take, got)
		}
	}
	if !p.take("other", 3, 10, waiting) {
		t.Error("a queue had no place because another was full")
	}
}
