// Command welcome-email registers users of a shop by a chain of tasks: validate, save,
// send a welcome e-mail. Two apps share the work, one in Go and one in Python; the
// agent is killed between two steps, and the mail still comes, once.
//
//	go run ./examples/welcome-email
//
// The SMTP server is Mailpit, built from source at the first run; the users are in a
// SQLite database of the apps' own.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

func main() { stage.Main("welcome-email", run) }

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // the first run builds Mailpit and installs grpcio
	defer cancel()
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	if err := play(ctx, lost); err != nil {
		if why := context.Cause(ctx); why != nil {
			return fmt.Errorf("%w (%w)", why, err)
		}
		return err
	}
	return nil
}

// play sets everything up, tells the story, and leaves nothing running.
func play(ctx context.Context, lost context.CancelCauseFunc) error {
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
	config, err := configure(dir, mails.smtp)
	if err != nil {
		return err
	}
	agent, err := stage.StartAgent(ctx, config)
	if err != nil {
		return err
	}
	defer agent.Stop()
	shop, err := openShop(ctx, agent.API, users, lost)
	if err != nil {
		return err
	}
	defer shop.close()
	python, err := openPython(ctx, agent.API, users.path)
	if err != nil {
		return err
	}
	if python != nil {
		defer python.Stop()
	}
	s := &story{agent: agent, config: config, mails: mails, users: users, shop: shop, python: python, welcome: make(map[string]bool)}
	for _, act := range []func(context.Context) error{s.register, s.inPython, s.share, s.kill, s.goOn, s.fromFile, s.undo, s.refuse, s.account} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// configure puts this run's addresses and folder into the configuration, and returns
// where it is.
func configure(dir, smtp string) (string, error) {
	const from = "examples/welcome-email"
	text, err := os.ReadFile(filepath.Join(from, "outrigger.yaml"))
	if err != nil {
		return "", err
	}
	api, err := freeAddress()
	if err != nil {
		return "", err
	}
	config := string(text)
	for _, place := range [][2]string{{"127.0.0.1:7601", api}, {"127.0.0.1:1025", smtp}, {"outrigger-tasks.db", filepath.Join(dir, "tasks.db")}} {
		if strings.Count(config, place[0]) != 1 {
			return "", fmt.Errorf("outrigger.yaml does not have %s once", place[0])
		}
		config = strings.Replace(config, place[0], place[1], 1)
	}
	if err := os.CopyFS(filepath.Join(dir, "templates"), os.DirFS(filepath.Join(from, "templates"))); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "outrigger.yaml")
	return path, os.WriteFile(path, []byte(config), 0o600)
}
