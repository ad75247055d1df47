package discovery

import (
	"slices"
	"time"
)

// damper decides when a change of the set is passed on. It reads no clock: now
// is monotonic time from any origin.
//
//   - The first set is passed on at once.
//   - Later changes wait for coalesce from the first of them, so that a burst is
//     one change.
//   - An endpoint that is missing stays for hold, but counts as terminating as
//     long as others are left: it gets no new calls, and keeps its counters and
//     connections in case it comes back.
type damper struct {
	coalesce, hold time.Duration

	begun   bool
	wanted  []Endpoint               // what the source said last
	shown   []Endpoint               // what was passed on last
	missing map[string]time.Duration // by address: since when wanted lacks what shown has
	since   time.Duration            // of the first change that was not passed on
	changed bool                     // there is one
}

// offer takes the whole set as it is now, in order.
func (d *damper) offer(now time.Duration, set []Endpoint) {
	if d.begun && slices.Equal(set, d.wanted) {
		return
	}
	d.wanted = set
	if !d.changed {
		d.changed, d.since = true, now
	}
	present := make(map[string]bool, len(set))
	for _, e := range set {
		present[e.Address] = true
		delete(d.missing, e.Address)
	}
	for _, e := range d.shown {
		if _, known := d.missing[e.Address]; !known && !present[e.Address] {
			if d.missing == nil {
				d.missing = make(map[string]time.Duration)
			}
			d.missing[e.Address] = now
		}
	}
}

// due returns when take has something to pass on; false: nothing waits.
func (d *damper) due() (at time.Duration, waits bool) {
	if d.changed {
		at, waits = d.since, true
		if d.begun {
			at += d.coalesce
		}
	}
	for _, since := range d.missing {
		if gone := since + d.hold; !waits || gone < at {
			at, waits = gone, true
		}
	}
	return at, waits
}

// take returns the set to pass on; false: it is the one that was passed on
// last, or it is not time yet.
func (d *damper) take(now time.Duration) ([]Endpoint, bool) {
	at, waits := d.due()
	if !waits || now < at {
		return nil, false
	}
	first := !d.begun
	d.begun, d.changed = true, false
	set := slices.Clone(d.wanted)
	if len(d.missing) > 0 {
		others := slices.ContainsFunc(set, func(e Endpoint) bool { return !e.Terminating })
		for _, e := range d.shown {
			since, missing := d.missing[e.Address]
			switch {
			case !missing:
			case now >= since+d.hold:
				delete(d.missing, e.Address)
			default:
				e.Terminating = e.Terminating || others
				set = append(set, e)
			}
		}
		set = ordered(set)
	}
	if !first && slices.Equal(set, d.shown) {
		return nil, false
	}
	d.shown = set
	return set, true
}
