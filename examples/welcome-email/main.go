// Command welcome-email registers users of a shop: validate, save, send a welcome
// e-mail, by a chain of tasks. Two apps share the work, one in Go and one in Python;
// the agent is killed between two steps, and the mail still comes, once.
//
//	go run ./examples/welcome-email
//
// The SMTP server is Mailpit, built from source at the first run; the users are in a
// SQLite database of the apps' own.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

func main() { stage.Main("welcome-email", run) }

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute) // the first run builds Mailpit
	defer cancel()
	dir, err := os.MkdirTemp("", "welcome-email")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	mails, err := startMailpit(ctx, dir)
	if err != nil {
		return err
	}
	defer mails.stop()
	users, err := openUsers(filepath.Join(dir, "users.db"))
	if err != nil {
		return err
	}
	defer users.close()
	api, err := freeAddress()
	if err != nil {
		return err
	}
	config, err := configure(dir, map[string]string{"api": api, "tasks.db": filepath.Join(dir, "tasks.db"), "smtp": mails.smtp, "templates": filepath.Join(dir, "templates")})
	if err != nil {
		return err
	}
	agent, err := stage.StartAgent(ctx, config)
	if err != nil {
		return err
	}
	defer agent.Stop()
	shop, err := openShop(ctx, agent.API, users)
	if err != nil {
		return err
	}
	defer shop.close()
	s := &story{agent: agent, config: config, mails: mails, users: users, shop: shop, dir: dir}
	for _, part := range []func(context.Context) error{s.register, s.python, s.kill, s.undo} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// story is what is played, and by whom.
type story struct {
	agent       *stage.Agent
	config, dir string
	mails       *mailpit
	users       *users
	shop        *shop
}

// register: the user is there as soon as it is saved; the mail follows.
func (s *story) register(ctx context.Context) error {
	fmt.Println("-- Ada registers with the app in Go")
	begun := time.Now()
	id, user, err := s.shop.register(ctx, "Ada", "ada@example.com")
	if err != nil {
		return err
	}
	fmt.Printf("after %d ms: user %d is saved, the caller has it\n", time.Since(begun).Milliseconds(), user.ID)
	if err := s.shop.wait(ctx, id); err != nil {
		return err
	}
	return s.once(ctx, user)
}

// kill: the agent dies between save and e-mail.
func (s *story) kill(ctx context.Context) error {
	fmt.Println("-- Grace registers, and the agent is killed between save and e-mail")
	if err := s.agent.Run(ctx, "task", "pause", "mails"); err != nil { // so that there is a between
		return err
	}
	id, user, err := s.shop.register(ctx, "Grace", "grace@example.com")
	if err != nil {
		return err
	}
	n, err := s.mails.count(ctx, user.Email)
	if err != nil || n != 0 {
		return errors.Join(err, fmt.Errorf("%d mails before the kill; want none", n))
	}
	fmt.Printf("user %d is saved, no mail yet: kill -9\n", user.ID)
	s.agent.Kill()
	if err := s.agent.Restart(ctx, s.config); err != nil {
		return err
	}
	if err := s.agent.Run(ctx, "task", "resume", "mails"); err != nil {
		return err
	}
	if err := s.shop.wait(ctx, id); err != nil {
		return err
	}
	fmt.Println("the chain went on with the mail")
	return s.once(ctx, user)
}

// undo: a mail that is refused for good takes the user back.
func (s *story) undo(ctx context.Context) error {
	fmt.Println("-- Mallory registers with an address that the SMTP server refuses")
	id, user, err := s.shop.register(ctx, "Mallory", "mallory@refused.example")
	if err != nil {
		return err
	}
	fmt.Printf("user %d is saved\n", user.ID)
	why := s.shop.wait(ctx, id)
	if why == nil {
		return errors.New("the chain completed; want it to fail")
	}
	fmt.Println(why)
	n, err := s.users.count(ctx, user.Email)
	if err != nil || n != 0 {
		return errors.Join(err, fmt.Errorf("%d users left; want none", n))
	}
	fmt.Println("the user was deleted again")
	return nil
}

// once checks that a user is in the table once and got one mail.
func (s *story) once(ctx context.Context, u user) error {
	rows, err := s.users.count(ctx, u.Email)
	if err != nil || rows != 1 {
		return errors.Join(err, fmt.Errorf("%s is in the table %d times; want once", u.Email, rows))
	}
	subject, err := s.mails.only(ctx, u.Email)
	if err != nil {
		return err
	}
	fmt.Printf("one mail: %q\n", subject)
	if want := "Welcome, " + u.Name; subject != want {
		return fmt.Errorf("its subject is %q; want %q", subject, want)
	}
	return nil
}
