package health

import "fmt"

// verdict is what the checks of one endpoint have come to. The zero value
// trusts it: an endpoint that nothing is known of takes calls.
type verdict struct {
	sick     bool
	against  int    // results in a row that speak against the present verdict
	failures int    // checks in a row that failed
	cause    string // of the last failure
	reason   string // why it is sick, as it is shown; empty: it is not
}

// thresholds are how many results in a row turn a verdict. Both at least 1.
type thresholds struct{ unhealthyAfter, healthyAfter int }

// check takes one check's result in. It reports whether the verdict, or its
// reason, is another now.
func (v *verdict) check(ok bool, cause string, t thresholds) bool {
	if ok {
		v.failures = 0
	} else {
		v.failures++
	}
	if ok != v.sick { // it says what is known
		v.against = 0
		return v.sick && v.renew(cause)
	}
	v.against++
	needed := t.unhealthyAfter
	if ok {
		needed = t.healthyAfter
	}
	if v.against < needed {
		return false
	}
	v.turn(!ok, cause)
	return true
}

// told takes an endpoint's own word in, which wants no second one: gRPC's
// health service says on its Watch stream what changed (gRFC A17 acts on it at
// once, too).
func (v *verdict) told(ok bool, cause string) bool {
	if ok {
		v.failures = 0
	} else {
		v.failures++
	}
	v.against = 0
	if ok == v.sick {
		v.turn(!ok, cause)
		return true
	}
	return v.sick && v.renew(cause)
}

func (v *verdict) turn(sick bool, cause string) {
	v.sick, v.against, v.cause, v.reason = sick, 0, "", ""
	if sick {
		v.renew(cause)
	}
}

// renew keeps the reason up to date, but not its count: one that changed with
// each check would be news each time.
func (v *verdict) renew(cause string) bool {
	if v.cause == cause {
		return false
	}
	v.cause, v.reason = cause, cause
	if v.failures > 1 {
		v.reason = fmt.Sprintf("%s (%d in a row)", cause, v.failures)
	}
	return true
}

// doubtful reports whether the next check should come sooner: the endpoint is
// sick, or its last check failed.
func (v *verdict) doubtful() bool { return v.sick || v.against > 0 }
