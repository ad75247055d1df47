// Package goals judges what a benchmark found by what was asked for.
package goals

import "fmt"

// Goal is something that was asked for, with what was found.
type Goal struct {
	About string
	Met   bool
}

// AtMost is the goal that a figure is not above a bound.
func AtMost(figure, bound float64, format string, args ...any) Goal {
	return Goal{fmt.Sprintf("%s: %.4g, want at most %.4g", fmt.Sprintf(format, args...), figure, bound), figure <= bound}
}

// AtLeast is the goal that a figure is not below a bound.
func AtLeast(figure, bound float64, format string, args ...any) Goal {
	return Goal{fmt.Sprintf("%s: %.4g, want at least %.4g", fmt.Sprintf(format, args...), figure, bound), figure >= bound}
}

// String is a goal as it is printed.
func (g Goal) String() string {
	if g.Met {
		return "met     " + g.About
	}
	return "MISSED  " + g.About
}

// Tally counts goals. The zero value is ready for use.
type Tally struct{ judged, missed int }

// Print prints goals, a line each and an empty one behind them, and counts them.
func (t *Tally) Print(all []Goal) {
	for _, g := range all {
		t.judged++
		if !g.Met {
			t.missed++
		}
		fmt.Println(" ", g)
	}
	fmt.Println()
}

// Err is an error where a goal was missed.
func (t *Tally) Err() error {
	if t.missed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d goals missed", t.missed, t.judged)
}
