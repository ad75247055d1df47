package main

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"sync"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// inGo and inPython are the apps' names as workers.
const (
	inGo     = "shop in Go"
	inPython = "shop in Python"
)

// shop is the app in Go: it registers users, and does its share of the work.
type shop struct {
	client  *task.Client
	stop    context.CancelFunc
	working sync.WaitGroup
}

// openShop starts it. lost is called if it can't work.
func openShop(ctx context.Context, api string, u *users, lost context.CancelCauseFunc) (*shop, error) {
	client, err := task.Dial(api)
	if err != nil {
		return nil, err
	}
	s := &shop{client: client}
	ctx, s.stop = context.WithCancel(ctx)
	worker := task.Worker{Name: inGo, Concurrency: 2, Kinds: map[string]task.Handler{
		"validate-user": task.JSON(validate),
		"save-user":     task.JSON(u.save),
		"delete-user":   task.JSON(u.remove),
	}}
	s.working.Go(func() {
		if err := worker.Run(ctx, client); err != nil {
			lost(fmt.Errorf("%s: %w", inGo, err))
		}
	})
	return s, nil
}

func (s *shop) close() {
	s.stop()
	s.working.Wait()
	_ = s.client.Close() // it was of use until now
}

// validate fails for good where no other attempt would give another answer.
func validate(_ context.Context, x user) (user, error) {
	if _, err := mail.ParseAddress(x.Email); err != nil {
		return x, task.Permanent(fmt.Errorf("%q is no e-mail address", x.Email))
	}
	return x, nil
}

// register has a user registered, and returns it as soon as it is saved; the chain,
// which id names, goes on.
func (s *shop) register(ctx context.Context, name, email string) (id string, u user, err error) {
	chain, err := s.client.Submit(ctx, registration(user{Name: name, Email: email}), task.Options{Key: "register " + email})
	if err != nil {
		return "", u, err
	}
	saved, err := s.client.WaitStep(ctx, chain.GetId(), "save")
	if err == nil {
		err = task.Result(saved, &u)
	}
	return chain.GetId(), u, err
}

// registration is the chain: validate, save, welcome.
func registration(u user) *outriggerv1.TaskSpec {
	validate := task.Step("validate", task.App("validate-user", nil), map[string]string{"app.payload": "input"})
	save := task.Step("save", task.App("save-user", nil), map[string]string{"app.payload": "steps.validate.output"})
	save.Compensation = &outriggerv1.StepCompensation{Task: task.App("delete-user", nil), Map: map[string]string{"app.payload": "steps.save.output"}}
	welcome := task.Step("welcome", task.Email(&outriggerv1.EmailWork{Template: &outriggerv1.EmailTemplate{Name: "welcome"}}), map[string]string{
		"email.to":                 "[steps.save.output.email]",
		"email.template.data_json": "json(steps.save.output)",
	})
	welcome.Task.Queue = "mails"
	return task.Chain(u, validate, save, welcome)
}

// finish waits for the end of a chain. The error of one that was not done is a
// *task.Error.
func (s *shop) finish(ctx context.Context, id string) error {
	_, err := s.client.Wait(ctx, id)
	return err
}

// refusal waits for the end of a chain that must not be done, and returns why it was
// not.
func (s *shop) refusal(ctx context.Context, id string) (*outriggerv1.Task, error) {
	err := s.finish(ctx, id)
	var why *task.Error
	switch {
	case err == nil:
		return nil, fmt.Errorf("chain %s COMPLETED; want it to fail", id)
	case !errors.As(err, &why):
		return nil, err
	}
	return why.Task, nil
}
