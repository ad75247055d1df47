package tasks

import (
	"slices"
	"testing"
	"time"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func texts(times []time.Time) (all []string) {
	for _, t := range times {
		all = append(all, t.Format(time.RFC3339))
	}
	return all
}

func timetableOf(t *testing.T, cron, zone string, missed outriggerv1.TaskSchedule_Missed) timetable {
	t.Helper()
	parsed, err := parseSchedule(&outriggerv1.TaskSchedule{Cron: cron, TimeZone: zone, Missed: missed})
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestTimesOfASchedule(t *testing.T) {
	for _, tc := range []struct {
		name, cron, zone, after string
		want                    []string
	}{
		{"every day in UTC", "30 2 * * *", "", "2026-03-28T02:30:00Z", []string{"2026-03-29T02:30:00Z", "2026-03-30T02:30:00Z"}},
		{"a time that Berlin's clocks leave out", "30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", []string{"2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"}},
		{"the time after the gap", "0 3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-30T01:00:00Z"}},
		{"a time that Berlin's clocks repeat", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
		{"the first time of the repeated hour", "0 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-25T00:00:00Z", "2026-10-26T01:00:00Z"}},
		{"named hours around the repeated one", "0 1-3 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", []string{"2026-10-24T23:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"}},
		{"every other hour", "0 */2 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", []string{"2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z"}},
		{"every half hour goes on through the repeated one", "*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", []string{"2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"}},
		{"every hour over the gap", "@hourly", "Europe/Berlin", "2026-03-29T00:00:00Z", []string{"2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"}},
		{"a half hour that Lord Howe's clocks repeat", "45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00:00Z", []string{"2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"}},
		{"each 90 seconds", "@every 90s", "", "2026-01-01T00:00:00Z", []string{"2026-01-01T00:01:30Z", "2026-01-01T00:03:00Z"}},
		{"a leap day", "0 0 29 2 *", "", "2026-01-01T00:00:00Z", []string{"2028-02-29T00:00:00Z"}},
		{"by name", "0 9 * * mon-fri", "America/New_York", "2026-11-25T20:00:00Z", []string{"2026-11-26T14:00:00Z", "2026-11-27T14:00:00Z", "2026-11-30T14:00:00Z"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			times := timetableOf(t, tc.cron, tc.zone, 0)
			var got []time.Time
			for last := at(tc.after); len(got) < len(tc.want); {
				last = times.next(last)
				got = append(got, last)
			}
			if !slices.Equal(texts(got), tc.want) {
				t.Errorf("got %v\nwant %v", texts(got), tc.want)
			}
		})
	}
}

func TestTimesThatWereMissed(t *testing.T) {
	const grace = time.Minute
	for _, tc := range []struct {
		name, cron string
		missed     outriggerv1.TaskSchedule_Missed
		last, now  string
		run        []string
		next       string
	}{
		{"none came", "0 * * * *", 0, "2026-01-01T00:00:00Z", "2026-01-01T00:59:59Z", nil, "2026-01-01T01:00:00Z"},
		{"one came just now", "0 * * * *", 0, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", []string{"2026-01-01T01:00:00Z"}, "2026-01-01T02:00:00Z"},
		{"one for all of them", "0 * * * *", outriggerv1.TaskSchedule_RUN_ONCE, "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z", []string{"2026-01-01T03:00:00Z"}, "2026-01-01T04:00:00Z"},
		{"none of them", "0 * * * *", outriggerv1.TaskSchedule_SKIP, "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z", nil, "2026-01-01T04:00:00Z"},
		{"none of them but the one that is due", "0 * * * *", outriggerv1.TaskSchedule_SKIP, "2026-01-01T00:00:00Z", "2026-01-01T03:00:20Z", []string{"2026-01-01T03:00:00Z"}, "2026-01-01T04:00:00Z"},
		{"all of them", "0 * * * *", outriggerv1.TaskSchedule_RUN_ALL, "2026-01-01T00:00:00Z", "2026-01-01T03:30:00Z", []string{"2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"}, "2026-01-01T04:00:00Z"},
		{"ten years, a time a minute", "* * * * *", outriggerv1.TaskSchedule_RUN_ONCE, "2025-01-01T00:00:00Z", "2035-01-01T00:00:30Z", []string{"2035-01-01T00:00:00Z"}, "2035-01-01T00:01:00Z"},
		{"ten years, a time a second", "@every 1s", outriggerv1.TaskSchedule_RUN_ONCE, "2025-01-01T00:00:00Z", "2035-01-01T00:00:00Z", []string{"2035-01-01T00:00:00Z"}, "2035-01-01T00:00:01Z"},
		{"the same steps as before", "@every 7s", outriggerv1.TaskSchedule_RUN_ONCE, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", []string{"2026-01-01T00:59:58Z"}, "2026-01-01T01:00:05Z"},
		{"ten years, one a year", "@yearly", outriggerv1.TaskSchedule_RUN_ALL, "2025-06-01T00:00:00Z", "2027-06-01T00:00:00Z", []string{"2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"}, "2028-01-01T00:00:00Z"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			run, next := timetableOf(t, tc.cron, "", tc.missed).due(at(tc.last), at(tc.now), grace)
			if !slices.Equal(texts(run), tc.run) || next.Format(time.RFC3339) != tc.next {
				t.Errorf("run %v, next %v\nwant %v, next %v", texts(run), next.Format(time.RFC3339), tc.run, tc.next)
			}
		})
	}
	t.Run("the last hundred of ten years", func(t *testing.T) {
		run, _ := timetableOf(t, "* * * * *", "", outriggerv1.TaskSchedule_RUN_ALL).due(at("2025-01-01T00:00:00Z"), at("2035-01-01T00:00:00Z"), grace)
		if len(run) != 100 || run[0] != at("2034-12-31T22:21:00Z") || run[99] != at("2035-01-01T00:00:00Z") {
			t.Errorf("%d times from %v on", len(run), run[0])
		}
	})
}

func TestSchedulesThatAreNone(t *testing.T) {
	for _, tc := range []struct{ cron, zone, field string }{
		{"", "", "cron"},
		{"* * * *", "", "cron"},
		{"60 * * * *", "", "cron"},
		{"0 0 30 2 *", "", "cron"},
		{"@reboot", "", "cron"},
		{"@every", "", "cron"},
		{"@every 10ms", "", "cron"},
		{"@every -1m", "", "cron"},
		{"TZ=UTC 0 0 * * *", "", "cron"},
		{"TZ=", "", "cron"},
		{"CRON_TZ=Europe/Berlin 0 0 * * *", "", "cron"},
		{"0 0 * * *", "Europe/Atlantis", "time_zone"},
		{"0 0 * * *", "Local", "time_zone"},
		{"0 0 * * *", "../etc/passwd", "time_zone"},
	} {
		_, err := parseSchedule(&outriggerv1.TaskSchedule{Cron: tc.cron, TimeZone: tc.zone})
		if err == nil || err.Field != tc.field {
			t.Errorf("%q in %q: %v, want an error of %s", tc.cron, tc.zone, err, tc.field)
		}
	}
}

func FuzzSchedule(f *testing.F) {
	f.Add("30 2 * * *", "Europe/Berlin", int64(1774659600))
	f.Add("*/7 1-3,5 * 2 0", "Australia/Lord_Howe", int64(0))
	f.Add("@every 90s", "", int64(1<<33))
	f.Fuzz(func(t *testing.T, text, zone string, second int64) {
		times, err := parseSchedule(&outriggerv1.TaskSchedule{Cron: text, TimeZone: zone})
		if err != nil || second > 1<<34 {
			return
		}
		after := time.Unix(second, 0)
		if next := times.next(after); !next.IsZero() && !next.After(after) {
			t.Errorf("%q in %q: after %v comes %v", text, zone, after, next)
		}
	})
}
