package health

import (
	"testing"

	"pgregory.net/rapid"
)

// TestVerdicts: what a sequence of checks comes to at 3 failures and 2
// successes. "+" passes, "r" is refused, "n" is NOT_SERVING; "S" and "N" are
// the endpoint's own word on a watch.
func TestVerdicts(t *testing.T) {
	for _, test := range []struct {
		name, results, reason string
		turns                 int
		doubtful              bool
	}{
		{"trusted before the first check", "", "", 0, false},
		{"two failures are a doubt", "rr", "", 0, true},
		{"three are a verdict", "rrr", "refused (3 in a row)", 1, true},
		{"a success between them is a new start", "rr+rr", "", 0, true},
		{"a success ends the doubt", "rr+", "", 0, false},
		{"one success is not enough", "rrr+", "refused (3 in a row)", 1, true},
		{"two are", "rrr++", "", 2, false},
		{"a failure between them is a new start", "rrr+r+", "refused (3 in a row)", 1, true},
		{"the count does not change with each failure", "rrrrrr", "refused (3 in a row)", 1, true},
		{"another cause is told", "rrrrn", "NOT_SERVING (5 in a row)", 2, true},
		{"its own word counts at once", "N", "NOT_SERVING", 1, true},
		{"and back", "NS", "", 2, false},
		{"said twice is no news", "NN", "NOT_SERVING", 1, true},
		{"a word clears the doubt", "rrSrr", "", 0, true},
		{"checks confirm the word", "Nn", "NOT_SERVING", 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var v verdict
			turns := 0
			for _, r := range test.results {
				var changed bool
				switch r {
				case '+':
					changed = v.check(true, "", thresholds{3, 2})
				case 'r':
					changed = v.check(false, "refused", thresholds{3, 2})
				case 'n':
					changed = v.check(false, "NOT_SERVING", thresholds{3, 2})
				case 'S':
					changed = v.told(true, "")
				case 'N':
					changed = v.told(false, "NOT_SERVING")
				}
				if changed {
					turns++
				}
			}
			if v.reason != test.reason || v.sick != (test.reason != "") || turns != test.turns || v.doubtful() != test.doubtful {
				t.Errorf("sick %v, %q, %d turns, doubtful %v; want %q, %d, %v", v.sick, v.reason, turns, v.doubtful(), test.reason, test.turns, test.doubtful)
			}
		})
	}
}

// TestAVerdictTurnsByThresholdsAlone holds any sequence of checks against a
// count of the last results.
func TestAVerdictTurnsByThresholdsAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := thresholds{rapid.IntRange(1, 5).Draw(t, "unhealthy_after"), rapid.IntRange(1, 5).Draw(t, "healthy_after")}
		results := rapid.SliceOf(rapid.Bool()).Draw(t, "results")
		var v verdict
		sick, row := false, 0
		for i, ok := range results {
			if i > 0 && results[i-1] == ok {
				row++
			} else {
				row = 1
			}
			before := sick
			if ok && row >= at.healthyAfter {
				sick = false
			} else if !ok && row >= at.unhealthyAfter {
				sick = true
			}
			changed := v.check(ok, "refused", at)

			if v.sick != sick || changed != (sick != before) || (v.reason == "") == sick {
				t.Fatalf("after %v: sick %v %q, changed %v; want %v, %v", results[:i+1], v.sick, v.reason, changed, sick, sick != before)
			}
		}
	})
}
