package conformance

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// The doors, by name.
const (
	core         = "core"
	relayed      = "relay"
	intercepted  = "interceptors"
	byPermission = "permits"
)

var doors = []string{core, relayed, intercepted, byPermission}

// door is a way for calls into one service's policies. What a method causes has
// happened when it returns. Not safe for concurrent use.
type door interface {
	// arrive begins a call.
	arrive(name string, w with) error
	// answer ends an attempt of a call as the script says.
	answer(name string, h how) error
	// cancel has the caller give up.
	cancel(name string) error
	// say has a caller whose request is open send another message.
	say(name string) error
	// head begins an attempt's answer.
	head(name string, h how) error
	// advance moves the time since the row began.
	advance(to time.Duration) error
	// state says how a call stands.
	state(name string) state
	// reload changes the service's settings.
	reload(s policy.Settings) error
	// subject is the service.
	subject() *policy.Service
	// now is the instant that the subject knows.
	now() policy.Instant
	// close ends what is left and says what should not have happened.
	close() error
}

// state is how a call stands: "waits" to be let in or for its next attempt,
// "attempt 1" or "attempts 1 2" under way, "refused BREAKER_OPEN" by a policy,
// "returned NOT_FOUND" by an attempt, "fallback OK", "canceled" by its caller.
type state struct {
	text string
	at   []string // addresses of the attempts under way; nil: the door does not know
}

const (
	waits    = "waits"
	canceled = "canceled"
)

func returned(c policy.Code) string    { return "returned " + c.String() }
func refused(r *policy.Refusal) string { return "refused " + r.Reason.String() }
func fallback(c policy.Code) string    { return "fallback " + c.String() }

// underWay names attempts by their numbers.
func underWay(numbers ...int) string {
	if len(numbers) == 1 {
		return fmt.Sprint("attempt ", numbers[0])
	}
	return "attempts " + strings.Trim(fmt.Sprint(numbers), "[]")
}

// newService makes a row's service with endpoints at the addresses.
func newService(r *row, addresses ...string) *policy.Service {
	settings := r.settings
	settings.Resource = r.endpoints() == 0
	s := policy.NewService("subject", settings, nil)
	specs := make([]balancer.Spec, 0, len(addresses))
	for _, a := range addresses {
		specs = append(specs, balancer.Spec{Address: a})
	}
	s.SetEndpoints(specs)
	return s
}

// addresses are those of endpoints that nobody connects to.
func addresses(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("endpoint-%d:1", i+1))
	}
	return all
}

// history is how every call stood after each step.
type history [][]string

// play drives a row's script through a door and compares how calls stand with
// what the row wants, and with how they stood elsewhere where that is given.
func play(r *row, d door, elsewhere history) (h history, err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	p := player{row: r, door: d, letters: make(map[string]string)}
	for i := range r.Script {
		s := &r.Script[i]
		if err := p.do(i, s); err != nil {
			return h, fmt.Errorf("step %d (at %v): %w", i+1, s.At, err)
		}
		stand, wrong := p.look(i, s, elsewhere)
		if _, real := d.(*relayDoor); real && wrong != nil {
			// What it says may still be on its way.
			_ = until("", func() bool { stand, wrong = p.look(i, s, elsewhere); return wrong == nil })
		}
		if h = append(h, stand); wrong != nil {
			return h, fmt.Errorf("step %d (at %v): %w", i+1, s.At, wrong)
		}
	}
	return h, nil
}

// look returns how calls stand after a step, and what is wrong with that.
func (p *player) look(i int, s *step, elsewhere history) ([]string, error) {
	stand := p.stand()
	if wrong := p.compare(s); wrong != nil {
		return stand, wrong
	}
	if elsewhere != nil && !p.row.random() && !slices.Equal(stand, elsewhere[i]) {
		return stand, fmt.Errorf("calls stand %v, and in the core %v", stand, elsewhere[i])
	}
	return stand, nil
}

// player plays one row.
type player struct {
	row     *row
	door    door
	calls   []string
	letters map[string]string // addresses of endpoints by letter
}

func (p *player) do(i int, s *step) error {
	if err := p.door.advance(s.At); err != nil {
		return err
	}
	each := func(calls names, do func(string) error) error {
		for _, name := range calls {
			if err := do(name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}
	if err := each(s.Call, func(name string) error {
		p.calls = append(p.calls, name)
		return p.door.arrive(name, s.With)
	}); err != nil {
		return err
	}
	if err := each(s.End, func(name string) error { return p.door.answer(name, s.how) }); err != nil {
		return err
	}
	if err := each(s.Head, func(name string) error { return p.door.head(name, s.how) }); err != nil {
		return err
	}
	if err := each(s.Say, p.door.say); err != nil {
		return err
	}
	if err := each(s.Cancel, p.door.cancel); err != nil {
		return err
	}
	if !s.Policy.IsZero() {
		if err := p.door.reload(p.row.policies[i]); err != nil {
			return err
		}
	}
	for _, e := range p.door.subject().Endpoints().All() {
		if s.Drain == "all" || s.Drain != "" && e.Address() == p.letters[s.Drain] {
			e.SetDraining(true)
		}
	}
	return nil
}

// stand is how every call stands, in the order of their arrival.
func (p *player) stand() []string {
	var all []string
	for _, name := range p.calls {
		all = append(all, name+": "+p.door.state(name).text)
	}
	return all
}

func (p *player) compare(s *step) error {
	var wrong []error
	for _, w := range s.Then {
		wrong = append(wrong, p.compareCalls(w))
	}
	service := p.door.subject()
	breakers := make(map[string]string)
	for _, b := range service.Breakers() {
		breakers[p.breakerName(b)] = b.Breaker.Snapshot(p.door.now()).State.String()
	}
	for name, want := range s.Breakers {
		if breakers[name] != want {
			wrong = append(wrong, fmt.Errorf("the breaker of %s is %q, want %s", name, breakers[name], want))
		}
	}
	if got := counts(service.Observed()); s.Observed != nil && !maps.Equal(got, s.Observed) {
		wrong = append(wrong, fmt.Errorf("observed %v, want %v", got, s.Observed))
	}
	actions := counts(service.Actions())
	for name, want := range s.Actions {
		if got, known := actions[name]; !known || got != want {
			wrong = append(wrong, fmt.Errorf("actions: %s is %d, want %d", name, got, want))
		}
	}
	return errors.Join(wrong...)
}

// breakerName is "service", a method, or the letter of an endpoint.
func (p *player) breakerName(b policy.NamedBreaker) string {
	switch {
	case b.Key.Endpoint != "":
		for letter, address := range p.letters {
			if address == b.Key.Endpoint {
				return letter
			}
		}
		return b.Key.Endpoint
	case b.Key.Method != "":
		return b.Key.Method
	case b.Override != "":
		return b.Override
	}
	return "service"
}

func (p *player) compareCalls(w want) error {
	var got []string
	for _, name := range w.calls {
		s := p.door.state(name)
		if s.text == w.text {
			if w.some {
				return nil
			}
			if err := p.compareEndpoints(name, s.at, w.at); err != nil {
				return err
			}
			continue
		}
		got = append(got, s.text)
		if !w.some {
			return fmt.Errorf("%s: %s, want %s", name, s.text, w.text)
		}
	}
	if w.some {
		return fmt.Errorf("none of %v: %s; they are %v", w.calls, w.text, got)
	}
	return nil
}

// compareEndpoints gives endpoints their letters where they have none yet.
func (p *player) compareEndpoints(name string, at, letters []string) error {
	if at == nil || len(letters) == 0 {
		return nil
	}
	if len(at) != len(letters) {
		return fmt.Errorf("%s is at %v, want %v", name, at, letters)
	}
	for i, letter := range letters {
		known, named := p.letters[letter]
		if !named && !slices.Contains(slices.Collect(maps.Values(p.letters)), at[i]) {
			p.letters[letter], known = at[i], at[i]
		}
		if known != at[i] {
			return fmt.Errorf("%s is at %v, want %v of %v", name, at, letters, p.letters)
		}
	}
	return nil
}

func counts(all []policy.Count) map[string]uint64 {
	m := make(map[string]uint64)
	for _, c := range all {
		m[c.Label] = c.Total
	}
	return m
}
