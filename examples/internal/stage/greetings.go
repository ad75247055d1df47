package stage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Greetings is the story of the examples in other languages: an app greets
// names through the agent, while its two servers die and come back.
type Greetings struct {
	// Config is the path of the agent's configuration.
	Config string
	// Servers are the two addresses that it names.
	Servers [2]string
	// App is the app's command. It reads a name a line, and prints the answer
	// to each, or the status, as a line.
	App []string
	// Dir is where it runs.
	Dir string
}

// story is a Greetings under way.
type story struct {
	ctx     context.Context
	app     *App
	servers [2]*greeter
	calls   int
}

// names are greeted in turn.
var names = []string{"Ada", "Bo", "Cleo", "Dan"}

// Play tells the story on standard output. The error says what did not happen.
func (g Greetings) Play(ctx context.Context) error {
	s := &story{ctx: ctx}
	for i, name := range []string{"a", "b"} {
		s.servers[i] = &greeter{name: name, address: g.Servers[i]}
		if err := s.servers[i].start(); err != nil {
			return err
		}
		defer s.servers[i].kill()
	}
	agent, err := StartAgent(ctx, g.Config)
	if err != nil {
		return err
	}
	defer agent.Stop()
	proxy := "grpc_proxy=http://" + agent.Egress
	if s.app, err = StartApp(ctx, g.Dir, []string{proxy}, g.App...); err != nil {
		return err
	}
	defer s.app.Stop()
	fmt.Printf("-- the app runs with %s\n", proxy)
	for _, act := range []func() error{s.balance, s.loseOne, s.loseBoth, s.comeBack} {
		if err := act(); err != nil {
			return err
		}
	}
	return nil
}

// pace is the time between two calls: the agent has long seen then that a
// server is gone, and a reader can follow.
const pace = 150 * time.Millisecond

// greet makes the app call once and prints what it says.
func (s *story) greet() (string, error) {
	select {
	case <-s.ctx.Done():
		return "", s.ctx.Err()
	case <-time.After(pace):
	}
	name := names[s.calls%len(names)]
	s.calls++
	line, err := s.app.Say(name)
	if err != nil {
		return "", err
	}
	fmt.Printf("call %2d: %s\n", s.calls, line)
	return line, nil
}

// answered calls n times, each of which must be answered, and counts the
// answers by server.
func (s *story) answered(n int) (map[string]int, error) {
	by := map[string]int{}
	for range n {
		line, err := s.greet()
		if err != nil {
			return nil, err
		}
		_, server, ok := strings.Cut(line, "this is server ")
		if !ok {
			return nil, fmt.Errorf("call %d was not answered", s.calls)
		}
		by[server]++
	}
	return by, nil
}

func (s *story) balance() error {
	fmt.Println("-- two servers: calls are balanced over them")
	by, err := s.answered(4)
	if err == nil && by["a"] != 2 {
		err = fmt.Errorf("of 4 calls server a got %d; want 2", by["a"])
	}
	return err
}

func (s *story) loseOne() error {
	s.servers[0].kill()
	fmt.Println("-- server a is killed: calls go on")
	_, err := s.answered(4)
	return err
}

// loseBoth expects failures of calls that were made, then a refusal of one
// that was not.
func (s *story) loseBoth() error {
	s.servers[1].kill()
	fmt.Println("-- server b is killed too: calls fail, until the circuit breaker opens")
	for failures := range 10 {
		line, err := s.greet()
		switch {
		case err != nil:
			return err
		case !strings.Contains(line, "BREAKER_OPEN"):
			continue
		case failures != 5:
			return fmt.Errorf("the breaker opened after %d failures; want 5", failures)
		}
		return nil
	}
	return errors.New("the breaker did not open")
}

// comeBack waits for the first answer: of the breaker's probe.
func (s *story) comeBack() error {
	for _, server := range s.servers {
		if err := server.start(); err != nil {
			return err
		}
	}
	fmt.Println("-- both servers are back: the breaker probes, and closes")
	for begun := time.Now(); time.Since(begun) < 10*time.Second; {
		line, err := s.greet()
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "hello") {
			_, err := s.answered(4)
			return err
		}
	}
	return errors.New("the breaker did not close within 10 s")
}
