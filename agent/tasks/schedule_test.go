package tasks

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// scheduled is a task of the kind at the times of a schedule in Berlin.
func scheduled(kind, cron string, missed outriggerv1.TaskSchedule_Missed) *outriggerv1.TaskSpec {
	return with(appTask(kind, "x"), func(s *outriggerv1.TaskSpec) {
		s.Schedule = &outriggerv1.TaskSchedule{Cron: cron, TimeZone: "Europe/Berlin", Missed: missed}
	})
}

// sleepUntil lets virtual time pass, and what is to happen then happen.
func sleepUntil(text string) {
	time.Sleep(time.Until(at(text)))
	synctest.Wait()
}

// due returns the times of a schedule's tasks, the oldest first.
func (s *stage) due(parent string) (times []string) {
	s.t.Helper()
	r, err := s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{Parent: parent, PageSize: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, t := range slices.Backward(r.GetTasks()) {
		id, err := ParseID(t.GetId())
		if err != nil {
			s.t.Fatal(err)
		}
		j, err := s.store.Get(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		times = append(times, j.Facts.Due.UTC().Format(time.RFC3339))
	}
	return times
}

func TestAScheduleSubmitsTasksAtItsTimes(t *testing.T) {
	for _, tc := range []struct {
		name, from, until string
		want              []string
	}{
		{"in winter", "2026-01-10T00:00:00Z", "2026-01-12T12:00:00Z", []string{"2026-01-10T01:30:00Z", "2026-01-11T01:30:00Z", "2026-01-12T01:30:00Z"}},
		{"when clocks go forward", "2026-03-28T00:00:00Z", "2026-03-30T12:00:00Z", []string{"2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"}},
		{"when clocks go back", "2026-10-24T00:00:00Z", "2026-10-26T12:00:00Z", []string{"2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onStageFrom(t, tc.from, func(*Options) {}, func(s *stage) {
				schedule := s.submit(scheduled("resize", "30 2 * * *", 0))
				s.want(schedule, outriggerv1.TaskState_SCHEDULED, 0)
				sleepUntil(tc.until)
				if got := s.due(schedule.GetId()); !slices.Equal(got, tc.want) {
					t.Errorf("tasks of %v, want %v", got, tc.want)
				}
				l := s.leaseOne("resize")
				if l.GetParent() != schedule.GetId() || string(l.GetPayload().GetData()) != "x" || l.GetStep() != "" {
					t.Errorf("leased %v", l)
				}
			})
		})
	}
}

func TestTimesThatNoAgentSaw(t *testing.T) {
	for _, tc := range []struct {
		missed outriggerv1.TaskSchedule_Missed
		want   []string
	}{
		{outriggerv1.TaskSchedule_RUN_ONCE, []string{"2026-01-01T04:00:00Z", "2026-01-01T05:00:00Z"}},
		{outriggerv1.TaskSchedule_SKIP, []string{"2026-01-01T05:00:00Z"}},
		{outriggerv1.TaskSchedule_RUN_ALL, []string{"2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z", "2026-01-01T04:00:00Z", "2026-01-01T05:00:00Z"}},
	} {
		t.Run(tc.missed.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sleepUntil("2026-01-01T00:30:00Z") // before anything ticks
				first := newStage(t, func(*Options) {})
				if err := first.e.Start(t.Context(), first.store); err != nil {
					t.Fatal(err)
				}
				schedule := first.submit(scheduled("resize", "0 * * * *", tc.missed))
				first.stop(time.Minute)
				sleepUntil("2026-01-01T04:30:00Z")
				second := newStage(t, func(*Options) {})
				second.store.takeOver(first.store)
				if err := second.e.Start(t.Context(), second.store); err != nil {
					t.Fatal(err)
				}
				sleepUntil("2026-01-01T05:30:00Z")
				if got := second.due(schedule.GetId()); !slices.Equal(got, tc.want) {
					t.Errorf("tasks of %v, want %v", got, tc.want)
				}
				second.stop(time.Minute)
			})
		})
	}
}

func TestATimeAtWhichTheQueueIsFullIsLeftOut(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:30:00Z", func(o *Options) {
		k := o.Kinds["resize"]
		k.Capacity = 2
		o.Kinds["resize"] = k
	}, func(s *stage) {
		schedule := s.submit(scheduled("resize", "0 * * * *", 0))
		sleepUntil("2026-01-01T04:30:00Z")
		if got := s.due(schedule.GetId()); len(got) != 2 {
			t.Errorf("tasks of %v", got)
		}
		now := s.get(schedule.GetId())
		s.want(now, outriggerv1.TaskState_SCHEDULED, 0)
		if !strings.Contains(now.GetError(), `2026-01-01T04:00:00Z was left out: queue "resize" has the 2 waiting tasks`) {
			t.Errorf("its note is %q", now.GetError())
		}
		if err := s.complete(s.leaseOne("resize"), ""); err != nil {
			t.Fatal(err)
		}
		sleepUntil("2026-01-01T05:30:00Z")
		if got := s.due(schedule.GetId()); len(got) != 3 || got[2] != "2026-01-01T05:00:00Z" {
			t.Errorf("tasks of %v", got)
		}
		if stats, err := s.e.Stats(s.t.Context()); err != nil || stats.ScheduleDropped != 2 {
			t.Errorf("%d were dropped, %v", stats.ScheduleDropped, err)
		}
	})
}

func TestAScheduleEndsByItsDeadline(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:30:00Z", func(*Options) {}, func(s *stage) {
		schedule := s.submit(with(scheduled("resize", "0 * * * *", 0), func(s *outriggerv1.TaskSpec) { s.Deadline = timeOf(at("2026-01-01T02:30:00Z")) }))
		sleepUntil("2026-01-01T09:00:00Z")
		s.want(s.get(schedule.GetId()), outriggerv1.TaskState_COMPLETED, 1)
		if got := s.due(schedule.GetId()); len(got) != 2 {
			t.Errorf("tasks of %v", got)
		}
	})
}

func TestACancelledScheduleSubmitsNoMore(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:30:00Z", func(*Options) {}, func(s *stage) {
		schedule := s.submit(scheduled("resize", "@every 90s", 0))
		sleepUntil("2026-01-01T00:33:30Z")
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: schedule.GetId()}); err != nil {
			t.Fatal(err)
		}
		sleepUntil("2026-01-01T09:00:00Z")
		s.want(s.get(schedule.GetId()), outriggerv1.TaskState_CANCELLED, 0)
		if got := s.due(schedule.GetId()); fmt.Sprint(got) != "[2026-01-01T00:31:30Z 2026-01-01T00:33:00Z]" {
			t.Errorf("tasks of %v", got)
		}
	})
}

func TestAScheduleRunsAtOnceWhenItIsAskedTo(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:30:00Z", func(*Options) {}, func(s *stage) {
		schedule := s.submit(scheduled("resize", "0 * * * *", outriggerv1.TaskSchedule_SKIP))
		if _, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: schedule.GetId()}); err != nil {
			t.Fatal(err)
		}
		sleepUntil("2026-01-01T01:30:00Z")
		if got := s.due(schedule.GetId()); fmt.Sprint(got) != "[2026-01-01T00:30:00Z 2026-01-01T01:00:00Z]" {
			t.Errorf("tasks of %v", got)
		}
	})
}

func TestAScheduleOfChains(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:30:00Z", func(*Options) {}, func(s *stage) {
		schedule := s.submit(with(chainOf("", step("a", nil, method("A")), step("b", nil, method("B"))), func(s *outriggerv1.TaskSpec) {
			s.Schedule = &outriggerv1.TaskSchedule{Cron: "0 * * * *"}
		}))
		sleepUntil("2026-01-01T02:30:00Z")
		r, err := s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{Parent: schedule.GetId()})
		if err != nil || len(r.GetTasks()) != 2 || len(s.called()) != 4 {
			t.Fatalf("%d chains, %d calls, %v", len(r.GetTasks()), len(s.called()), err)
		}
		for _, c := range r.GetTasks() {
			s.want(c, outriggerv1.TaskState_COMPLETED, 0)
		}
	})
}

func TestAScheduleOutlivesAStoreThatIsDown(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:59:59Z", func(*Options) {}, func(s *stage) {
		schedule := s.submit(scheduled("resize", "0 * * * *", 0))
		s.store.fail(errCrash)
		sleepUntil("2026-01-01T01:00:20Z")
		s.store.fail(nil)
		sleepUntil("2026-01-01T01:00:30Z")
		if got := s.due(schedule.GetId()); fmt.Sprint(got) != "[2026-01-01T01:00:00Z]" {
			t.Errorf("tasks of %v", got)
		}
	})
}

func TestOneScheduleOfAKind(t *testing.T) {
	onStageFrom(t, "2026-01-01T00:30:00Z", func(*Options) {}, func(s *stage) {
		daily := func() *outriggerv1.TaskSpec {
			return with(scheduled("resize", "@daily", 0), func(s *outriggerv1.TaskSpec) { s.Unique = &outriggerv1.UniqueTask{Key: "report"} })
		}
		first := s.submit(daily())
		if r, err := s.trySubmit(daily(), ""); err != nil || !r.GetExisted() || r.GetTask().GetId() != first.GetId() {
			t.Errorf("%v, %v", r, err)
		}
		_, err := s.trySubmit(with(daily(), func(s *outriggerv1.TaskSpec) { s.Schedule.Cron = "no" }), "")
		wantStatus(t, err, codes.InvalidArgument, "task.schedule.cron: ")
	})
}
