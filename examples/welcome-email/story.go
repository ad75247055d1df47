package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// story is what is played, and by whom.
type story struct {
	agent   *stage.Agent
	config  string
	mails   *mailpit
	users   *users
	shop    *shop
	python  *stage.App      // nil: this machine can't run it
	welcome map[string]bool // the addresses that must have a user and a mail at the end
}

// register: the caller has its user as soon as it is saved; the mail follows.
func (s *story) register(ctx context.Context) error {
	fmt.Println("-- Ada registers with the app in Go")
	begun := time.Now()
	id, u, err := s.shop.register(ctx, "Ada", "ada@example.com")
	if err != nil {
		return err
	}
	fmt.Printf("after %d ms she has her answer: user %d is saved\n", time.Since(begun).Milliseconds(), u.ID)
	return s.welcomed(ctx, id, u)
}

// inPython: the same from another language.
func (s *story) inPython(ctx context.Context) error {
	if s.python == nil {
		return nil
	}
	fmt.Println("-- Alan registers with the app in Python")
	return s.byPython(ctx, user{Name: "Alan", Email: "alan@example.com"})
}

func (s *story) byPython(ctx context.Context, u user) error {
	line, err := s.python.Say(u.Name + " " + u.Email)
	if err != nil {
		return err
	}
	var id string
	if _, err := fmt.Sscan(line, &id, &u.ID); err != nil {
		return fmt.Errorf("the app in Python says %q; want a chain and a user: %w", line, err)
	}
	fmt.Printf("user %d is saved\n", u.ID)
	return s.welcomed(ctx, id, u)
}

// crowd is how many register at once.
const crowd = 20

// share: what many users cause is done by both apps.
func (s *story) share(ctx context.Context) error {
	who := "both apps work"
	if s.python == nil {
		who = "the one app works"
	}
	fmt.Printf("-- %d users register at once, and %s\n", crowd, who)
	var all sync.WaitGroup
	failures := make([]error, crowd)
	for i := range crowd {
		email := fmt.Sprintf("user-%d@example.com", i+1)
		s.welcome[email] = true
		all.Go(func() {
			id, _, err := s.shop.register(ctx, fmt.Sprintf("User-%d", i+1), email)
			if err == nil {
				err = s.shop.finish(ctx, id)
			}
			failures[i] = err
		})
	}
	all.Wait()
	if err := errors.Join(failures...); err != nil {
		return err
	}
	by := make(map[string]int)
	for _, kind := range []string{"validate-user", "save-user"} {
		list, err := s.shop.client.API().ListTasks(ctx, &outriggerv1.ListTasksRequest{PageSize: 1000, Kind: kind})
		if err != nil {
			return err
		}
		for _, t := range list.GetTasks() {
			by[t.GetWorker()]++
		}
	}
	fmt.Printf("by the agent's account the %s did %d tasks so far, and the %s %d\n", inGo, by[inGo], inPython, by[inPython])
	if s.python != nil && (by[inGo] == 0 || by[inPython] == 0) {
		return fmt.Errorf("tasks done by worker: %v; want some by both", by)
	}
	return nil
}

// kill: the agent dies between save and e-mail. A pause makes the moment between the
// two long enough to be hit.
func (s *story) kill(ctx context.Context) error {
	fmt.Println("-- Grace registers, and the agent is killed between save and e-mail")
	if err := s.agent.Run(ctx, "task", "pause", "mails"); err != nil {
		return err
	}
	id, u, err := s.shop.register(ctx, "Grace", "grace@example.com")
	if err != nil {
		return err
	}
	if err := s.waiting(ctx, u); err != nil {
		return err
	}
	fmt.Printf("user %d is saved, her mail waits: kill -9\n", u.ID)
	s.agent.Kill()
	begun := time.Now()
	if err := s.agent.Restart(ctx, s.config); err != nil {
		return err
	}
	fmt.Printf("another agent is ready after %d ms, on the same file\n", time.Since(begun).Milliseconds())
	if err := s.waiting(ctx, u); err != nil {
		return err
	}
	if err := s.agent.Run(ctx, "task", "resume", "mails"); err != nil {
		return err
	}
	return s.welcomed(ctx, id, u)
}

// waiting checks that a user is saved, and that the mail waits in the paused queue.
func (s *story) waiting(ctx context.Context, u user) error {
	rows, err := s.users.all(ctx)
	if err != nil {
		return err
	}
	mails, err := s.mails.to(ctx, u.Email)
	if err != nil {
		return err
	}
	if rows[u.Email] != 1 || len(mails) != 0 {
		return fmt.Errorf("%s is in the table %d times and got %d mails; want once, and none yet", u.Email, rows[u.Email], len(mails))
	}
	// A connection that lost its agent a moment ago is still in its backoff.
	list, err := s.shop.client.API().ListQueues(ctx, &outriggerv1.ListQueuesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for _, q := range list.GetQueues() {
		if q.GetName() == "mails" && q.GetPaused() && q.GetAvailable() == 1 {
			return nil
		}
	}
	return fmt.Errorf("queues: %v; want mails to be paused, with one task", list.GetQueues())
}

// goOn: both apps have found the new agent by themselves.
func (s *story) goOn(ctx context.Context) error {
	if s.python == nil {
		return nil
	}
	fmt.Println("-- Barbara registers with the app in Python, which outlived the agent too")
	return s.byPython(ctx, user{Name: "Barbara", Email: "barbara@example.com"})
}

// fromFile: the command line can do it too.
func (s *story) fromFile(ctx context.Context) error {
	fmt.Println("-- somebody registers Linus by the command line, with chain.yaml")
	const email = "linus@example.com"
	s.welcome[email] = true
	return s.agent.Show(ctx, "task", "submit", "--file", "examples/welcome-email/chain.yaml", "--data", `{"name": "Linus", "email": "`+email+`"}`, "--key", "register "+email, "--wait")
}

// undo: a mail that is refused for good takes the user back.
func (s *story) undo(ctx context.Context) error {
	fmt.Println("-- Mallory registers with an address that the SMTP server refuses for good")
	id, u, err := s.shop.register(ctx, "Mallory", "mallory@refused.example")
	if err != nil {
		return err
	}
	fmt.Printf("user %d is saved\n", u.ID)
	t, err := s.shop.refusal(ctx, id)
	if err != nil {
		return err
	}
	if err := s.agent.Show(ctx, "task", "get", id); err != nil {
		return err
	}
	for _, step := range t.GetSteps() {
		if step.GetName() == "save" && step.GetState() != "COMPENSATED" {
			return fmt.Errorf("save is %s; want it COMPENSATED", step.GetState())
		}
	}
	rows, err := s.users.all(ctx)
	if err == nil && rows[u.Email] != 0 {
		err = fmt.Errorf("%s is in the table %d times; want it deleted", u.Email, rows[u.Email])
	}
	if err == nil {
		fmt.Printf("user %d is deleted again\n", u.ID)
	}
	return err
}

// refuse: a chain whose first step fails for good does nothing else.
func (s *story) refuse(ctx context.Context) error {
	fmt.Println("-- Eve registers with an address that is none")
	_, _, err := s.shop.register(ctx, "Eve", "eve.example.com")
	if err == nil || !strings.Contains(err.Error(), "is no e-mail address") {
		return fmt.Errorf("the caller got %w; want that the address is none", err)
	}
	fmt.Println("the caller gets:", err)
	return nil
}

// welcomed waits for the end of a user's chain, and checks that the user has the mail
// that the chain says it sent.
func (s *story) welcomed(ctx context.Context, id string, u user) error {
	s.welcome[u.Email] = true
	if err := s.shop.finish(ctx, id); err != nil {
		return err
	}
	sent, err := s.sent(ctx, id)
	if err != nil {
		return err
	}
	mails, err := s.mails.to(ctx, u.Email)
	switch want := "Welcome, " + u.Name; {
	case err != nil:
		return err
	case len(mails) != 1:
		return fmt.Errorf("%s got %d mails; want one", u.Email, len(mails))
	case mails[0].Subject != want:
		return fmt.Errorf("the mail's subject is %q; want %q", mails[0].Subject, want)
	case mails[0].MessageID != sent:
		return fmt.Errorf("the mail's Message-ID is %s; want the task's, %s", mails[0].MessageID, sent)
	}
	fmt.Printf("Mailpit has one mail to %s: %q, %s\n", u.Email, mails[0].Subject, mails[0].MessageID)
	return nil
}

// sent returns the Message-ID that the e-mail task of a chain had.
func (s *story) sent(ctx context.Context, id string) (string, error) {
	list, err := s.shop.client.API().ListTasks(ctx, &outriggerv1.ListTasksRequest{Parent: id, Kind: "email", ShowPayload: true})
	if err != nil {
		return "", err
	}
	if len(list.GetTasks()) != 1 {
		return "", fmt.Errorf("chain %s has %d e-mail tasks; want one", id, len(list.GetTasks()))
	}
	return list.GetTasks()[0].GetResult().GetMessageId(), nil
}

// account: when nothing is left to be done, each user has one mail, and nobody else
// has any.
func (s *story) account(ctx context.Context) error {
	left, err := s.shop.client.API().ListTasks(ctx, &outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{
		outriggerv1.TaskState_SCHEDULED, outriggerv1.TaskState_AVAILABLE, outriggerv1.TaskState_RUNNING, outriggerv1.TaskState_RETRYABLE,
	}})
	if err != nil {
		return err
	}
	if n := len(left.GetTasks()); n != 0 {
		return fmt.Errorf("%d tasks are left, such as %v; want none", n, left.GetTasks()[0])
	}
	rows, err := s.users.all(ctx)
	if err != nil {
		return err
	}
	mails, err := s.mails.all(ctx)
	if err != nil {
		return err
	}
	got, ids := make(map[string]int), make(map[string]bool)
	for _, m := range mails {
		ids[m.MessageID] = true
		for _, to := range m.To {
			got[to.Address]++
		}
	}
	fmt.Printf("-- nothing is left to do: %d users in the table, %d mails in Mailpit, %d Message-IDs\n", len(rows), len(mails), len(ids))
	for email := range s.welcome {
		if rows[email] != 1 || got[email] != 1 {
			return fmt.Errorf("%s is in the table %d times and got %d mails; want once, and one", email, rows[email], got[email])
		}
	}
	if n := len(s.welcome); len(rows) != n || len(mails) != n || len(ids) != n {
		return fmt.Errorf("want %d of each", n)
	}
	return nil
}
