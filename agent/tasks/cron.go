package tasks

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // the binary runs where no zone files are

	"github.com/robfig/cron/v3"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// maxMissed is how many missed times RUN_ALL makes up for.
const maxMissed = 100

// timetable is a schedule's times. It is a plain value: what comes next is a
// function of it and of a time.
type timetable struct {
	times cron.Schedule
	// zone is where the clock is that the times are read from.
	zone *time.Location
	// throughout: it names no hour, so that it goes on through an hour that a clock
	// change repeats.
	throughout bool
	missed     outriggerv1.TaskSchedule_Missed
}

// firstDay is before every time that is asked for. The parser's library goes round
// in circles where a zone left out a whole day, as Kwajalein did in 1993 and Samoa
// in 2011: times before it must not be asked for.
var firstDay = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// everyHour is the hour field of a cron.SpecSchedule that names none: a star.
const everyHour = 1 << 63

// parseSchedule reads a schedule; what is wrong with it names the field.
func parseSchedule(s *outriggerv1.TaskSchedule) (timetable, *FieldError) {
	zone, err := time.LoadLocation(s.GetTimeZone())
	if err != nil || s.GetTimeZone() == "Local" {
		return timetable{}, &FieldError{"time_zone", fmt.Sprintf("%q is no IANA time zone, such as Europe/Berlin", s.GetTimeZone())}
	}
	text := strings.TrimSpace(s.GetCron())
	if strings.Contains(text, "TZ=") { // the parser would take it, beside time_zone
		return timetable{}, &FieldError{"cron", fmt.Sprintf("%q holds a time zone; want it in time_zone", s.GetCron())}
	}
	times, err := cron.ParseStandard(text)
	if err != nil {
		return timetable{}, &FieldError{"cron", fmt.Sprintf("%q is no schedule: %v; want five fields (minute hour day-of-month month day-of-week), @daily or the like, or @every 90s", s.GetCron(), err)}
	}
	if every, ok := strings.CutPrefix(text, "@every "); ok {
		if d, err := time.ParseDuration(every); err != nil || d < time.Second {
			return timetable{}, &FieldError{"cron", fmt.Sprintf("%q comes too often; want a second at least", s.GetCron())}
		}
	}
	t := timetable{times: times, zone: zone, throughout: true, missed: s.GetMissed()}
	if fields, ok := times.(*cron.SpecSchedule); ok {
		fields.Location = zone
		t.throughout = fields.Hour&everyHour != 0
		if t.next(firstDay).IsZero() {
			return timetable{}, &FieldError{"cron", fmt.Sprintf("%q names a day that never comes", s.GetCron())}
		}
	}
	return t, nil
}

// next returns the first time after t, in UTC; zero: none comes.
//
// Of an hour that a clock change leaves out no time comes. Of one that it repeats
// each time comes once, when it comes first: the parser's library would give both.
func (t timetable) next(after time.Time) time.Time {
	after = later(after, firstDay)
	for {
		at := t.times.Next(after.UTC().In(t.zone))
		if at.IsZero() {
			return at
		}
		if t.throughout || !repeated(at) {
			return at.UTC()
		}
		after = at
	}
}

// repeated reports whether the clock showed the same time before: it was set back
// less long ago than by how much.
func repeated(at time.Time) bool {
	_, offset := at.Zone()
	start, _ := at.ZoneBounds()
	if start.IsZero() {
		return false
	}
	_, before := start.Add(-time.Second).In(at.Location()).Zone()
	back := time.Duration(before-offset) * time.Second
	return back > 0 && at.Sub(start) < back
}

// due returns which times after last, which was dealt with, are to be run at now,
// the oldest first, and the time that comes next (zero: none). It goes by what the
// schedule says of missed times: the latest one is missed if it lies more than
// grace ago, those before it are.
func (t timetable) due(last, now time.Time, grace time.Duration) (run []time.Time, next time.Time) {
	need := 1
	if t.missed == outriggerv1.TaskSchedule_RUN_ALL {
		need = maxMissed
	}
	run = t.latest(last, now, need)
	if len(run) > 0 {
		last = run[len(run)-1]
	}
	next = t.next(last)
	if t.missed == outriggerv1.TaskSchedule_SKIP && len(run) > 0 && now.Sub(run[0]) > grace {
		run = nil
	}
	return run, next
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// latest returns the last times after last up to now, at most n. It does not go
// through all of them: years may have passed at a time a minute.
func (t timetable) latest(last, now time.Time, n int) []time.Time {
	if every, ok := t.times.(cron.ConstantDelaySchedule); ok { // each comes from the one before
		if skipped := int64(now.Sub(last)/every.Delay) - int64(n); skipped > 0 {
			last = last.Add(time.Duration(skipped) * every.Delay)
		}
		return t.between(last, now, n)
	}
	for span := time.Duration(n) * time.Minute; ; span *= 8 {
		from := later(last, now.Add(-span))
		if found := t.between(from, now, n); len(found) == n || !from.After(last) {
			return found
		}
	}
}

// between returns the last n times after from up to now.
func (t timetable) between(from, now time.Time, n int) (found []time.Time) {
	for at := t.next(from); !at.IsZero() && !at.After(now); at = t.next(at) {
		if len(found) == n {
			found = append(found[:0], found[1:]...)
		}
		found = append(found, at)
	}
	return found
}
