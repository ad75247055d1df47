package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/mail"
	"sync"

	_ "modernc.org/sqlite" // the driver "sqlite"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// user is a user of the shop.
type user struct {
	ID    int64  `json:"id,omitempty"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// users is the table, in a database that the apps of both languages open.
type users struct {
	db   *sql.DB
	path string
}

func openUsers(path string) (*users, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	_, err = db.Exec("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE)")
	return &users{db, path}, err
}

func (u *users) close() { _ = u.db.Close() }

// save is the same however often it is done: a task may come twice.
func (u *users) save(ctx context.Context, x user) (user, error) {
	err := u.db.QueryRowContext(ctx, "INSERT INTO users (name, email) VALUES (?, ?) ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id", x.Name, x.Email).Scan(&x.ID)
	return x, err
}

func (u *users) remove(ctx context.Context, id int64) (struct{}, error) {
	_, err := u.db.ExecContext(ctx, "DELETE FROM users WHERE id = ?", id)
	return struct{}{}, err
}

func (u *users) count(ctx context.Context, email string) (n int, err error) {
	err = u.db.QueryRowContext(ctx, "SELECT count(*) FROM users WHERE email = ?", email).Scan(&n)
	return n, err
}

// shop is the app in Go: it registers users and does its share of the work.
type shop struct {
	client  *task.Client
	stop    context.CancelFunc
	working sync.WaitGroup
	failed  error
}

func openShop(ctx context.Context, api string, u *users) (*shop, error) {
	client, err := task.Dial(api)
	if err != nil {
		return nil, err
	}
	s := &shop{client: client}
	ctx, s.stop = context.WithCancel(ctx)
	worker := task.Worker{Name: "shop in Go", Kinds: map[string]task.Handler{
		"validate-user": task.JSON(func(_ context.Context, x user) (user, error) {
			if _, err := mail.ParseAddress(x.Email); err != nil {
				return x, task.Permanent(fmt.Errorf("%q is no address: %w", x.Email, err))
			}
			return x, nil
		}),
		"save-user":   task.JSON(u.save),
		"delete-user": task.JSON(u.remove),
	}}
	s.working.Go(func() { s.failed = worker.Run(ctx, client) })
	return s, nil
}

func (s *shop) close() {
	s.stop()
	s.working.Wait()
	_ = s.client.Close()
}

// register has a user registered, and returns it as soon as it is saved.
func (s *shop) register(ctx context.Context, name, email string) (id string, u user, err error) {
	submitted, err := s.client.Submit(ctx, registration(name, email), task.Options{Key: "register " + email})
	if err != nil {
		return "", u, err
	}
	saved, err := s.client.WaitStep(ctx, submitted.GetId(), "save")
	if err == nil {
		err = task.Result(saved, &u)
	}
	return submitted.GetId(), u, err
}

// registration is the chain: validate, save, welcome.
func registration(name, email string) *outriggerv1.TaskSpec {
	save := task.Step("save", task.App("save-user", nil), map[string]string{"app.payload": "steps.validate.output"})
	save.Compensation = &outriggerv1.StepCompensation{Task: task.App("delete-user", nil), Map: map[string]string{"app.payload": "steps.save.output.id"}}
	welcome := task.Step("welcome", task.Email(&outriggerv1.EmailWork{Template: &outriggerv1.EmailTemplate{Name: "welcome"}}), map[string]string{
		"email.to":                 "[steps.save.output.email]",
		"email.template.data_json": `json({"name": steps.save.output.name, "id": steps.save.output.id})`,
	})
	welcome.Task.Queue = "mails"
	chain := task.Chain(user{Name: name, Email: email},
		task.Step("validate", task.App("validate-user", nil), map[string]string{"app.payload": "input"}), save, welcome)
	chain.GetChain().Output = "steps.save.output"
	return chain
}

// wait waits for the end of a chain.
func (s *shop) wait(ctx context.Context, id string) error {
	_, err := s.client.Wait(ctx, id)
	return errors.Join(err, s.failed)
}
