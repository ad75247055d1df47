package tasks

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// defaultCallerRuns is how many tasks callers may run at once.
const defaultCallerRuns = 64

// scheduleQueue is the queue of schedules themselves: what they submit waits in
// queues of its own, so that neither a full queue nor a paused one stops a clock.
const scheduleQueue = "outrigger-schedules"

// scheduleWorkers run the schedules that are due; each takes one transaction.
const scheduleWorkers = 4

// check returns what makes no sense in the settings.
func (s *Settings) check() error {
	var problems []error
	if _, ok := s.Queues[DefaultQueue]; !ok {
		problems = append(problems, errors.New(`queues: "default" is missing`))
	}
	if s.MaxPayload < 1 {
		problems = append(problems, fmt.Errorf("max_payload is %d; want 1 at least", s.MaxPayload))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Queues)) {
		if q := s.Queues[name]; q.Workers < 1 || q.Capacity < 1 {
			problems = append(problems, fmt.Errorf("queue %q has %d workers and a capacity of %d; want 1 at least of each", name, q.Workers, q.Capacity))
		}
		if s.Kinds[name].App {
			problems = append(problems, fmt.Errorf("queue %q has the name of a kind that apps work, whose queue no other can be", name))
		}
		if name == scheduleQueue {
			problems = append(problems, fmt.Errorf("queue %q is the agent's own", name))
		}
	}
	for _, name := range []string{KindGRPC, KindHTTP, KindEmail, KindChain} {
		if k, ok := s.Kinds[name]; !ok || k.App {
			problems = append(problems, fmt.Errorf("kind %q must be there, and is not for apps", name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Kinds)) {
		problems = append(problems, s.Kinds[name].check(name))
	}
	return errors.Join(problems...)
}

func (k Kind) check(name string) error {
	switch {
	case name == KindSchedule || name == scheduleQueue:
		return fmt.Errorf("kind %q is the agent's own", name)
	case k.MaxAttempts < 1 || k.BackoffBase < 0 || k.BackoffMax < k.BackoffBase || k.Timeout <= 0:
		return fmt.Errorf("kind %q: max attempts %d, backoff %v to %v, timeout %v; want 1 attempt at least, a longest backoff no shorter than the first, and a timeout", name, k.MaxAttempts, k.BackoffBase, k.BackoffMax, k.Timeout)
	case k.App && (k.Lease <= 0 || k.Capacity < 1):
		return fmt.Errorf("kind %q: lease %v, capacity %d; want both above 0", name, k.Lease, k.Capacity)
	}
	return nil
}

// clone returns settings that share no map with s, defaults filled in.
func (s Settings) clone() *Settings {
	s.Queues, s.Kinds = maps.Clone(s.Queues), maps.Clone(s.Kinds)
	if s.CallerRuns == 0 {
		s.CallerRuns = defaultCallerRuns
	}
	return &s
}

// workers returns how many of each queue the agent runs at once.
func (s *Settings) workers() map[string]int {
	all := map[string]int{scheduleQueue: scheduleWorkers}
	for name, q := range s.Queues {
		all[name] = q.Workers
	}
	return all
}

// queueNames returns the names of all queues, those of kinds included, in order.
func (s *Settings) queueNames() []string {
	names := slices.Collect(maps.Keys(s.Queues))
	names = append(names, s.appKinds()...)
	slices.Sort(names)
	return names
}

// appKinds returns the names of kinds that apps work, in order.
func (s *Settings) appKinds() []string {
	var names []string
	for name, k := range s.Kinds {
		if k.App {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// capacity returns how many tasks may wait in a queue; false: there is none of
// that name.
func (s *Settings) capacity(queue string) (int, bool) {
	if q, ok := s.Queues[queue]; ok {
		return q.Capacity, true
	}
	if k, ok := s.Kinds[queue]; ok && k.App {
		return k.Capacity, true
	}
	return 0, false
}

// kept returns how long a task stays at least once it ended, however it ended;
// zero: nobody said.
func (s *Settings) kept() time.Duration {
	return min(s.Retention.Completed, s.Retention.Cancelled, s.Retention.Failed)
}

// known lists names for a message.
func known(names []string) string {
	if len(names) == 0 {
		return "there are none"
	}
	const most = 20
	if len(names) > most {
		return fmt.Sprintf("known: %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "known: " + strings.Join(names, ", ")
}
