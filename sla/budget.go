package sla

import "time"

// hourWidth is how finely the error budget's window slides.
const hourWidth = time.Hour

// maxHours is how far back budgets can be asked for.
const maxHours = int64(MaxWindow / hourWidth)

// hour is what an hour of the error budget's window counted.
type hour struct {
	number     int64 // since the origin
	counted    uint64
	unanswered uint64
}

// hours remember an hour each, oldest first; those without calls are left out.
// It needs counters only, and so 90 days of it fit into 52 KiB.
type hours []hour

// add counts a change that was closed at the instant.
func (h *hours) add(at Instant, c change) {
	counted := c.counted()
	if counted == 0 {
		return
	}
	number := int64(at / hourWidth)
	list := *h
	if len(list) == 0 || list[len(list)-1].number != number {
		gone := 0
		for gone < len(list) && list[gone].number <= number-maxHours {
			gone++
		}
		list = append(list[:copy(list, list[gone:])], hour{number: number})
		*h = list
	}
	last := &list[len(list)-1]
	last.counted += counted
	last.unanswered += c.calls[Unavailable]
}

// within adds up the hours that lie in the window before now, and returns since
// when that is.
func (h hours) within(now Instant, window time.Duration) (counted, unanswered uint64, since Instant) {
	first := int64(now/hourWidth) - int64(window/hourWidth) + 1
	for _, hour := range h {
		if hour.number >= first {
			counted += hour.counted
			unanswered += hour.unanswered
		}
	}
	return counted, unanswered, Instant(max(first, 0)) * hourWidth
}

// counted returns how many calls an SLA goes by.
func (c *change) counted() uint64 {
	return c.calls[Success] + c.calls[Failure] + c.calls[Unavailable]
}
