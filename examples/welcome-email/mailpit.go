package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mailpit is a real SMTP server that shows what it got.
type mailpit struct {
	smtp, web string
	cmd       *exec.Cmd
	log       *os.File
}

// startMailpit builds Mailpit, once, and starts it. It takes mail to example.com and
// refuses all other for good.
func startMailpit(ctx context.Context, dir string) (*mailpit, error) {
	binary, err := filepath.Abs(filepath.Join(".cache", "examples", "mailpit"))
	if err != nil {
		return nil, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/axllent/mailpit")
	build.Dir = filepath.Join("examples", "welcome-email", "mailpit")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mailpit does not build: %w\n%s", err, out)
	}
	m := &mailpit{}
	if m.smtp, err = freeAddress(); err != nil {
		return nil, err
	}
	if m.web, err = freeAddress(); err != nil {
		return nil, err
	}
	if m.log, err = os.Create(filepath.Join(dir, "mailpit.log")); err != nil {
		return nil, err
	}
	m.cmd = exec.CommandContext(ctx, binary, "--smtp", m.smtp, "--listen", m.web, "--smtp-allowed-recipients", `@example\.com$`, "--database", filepath.Join(dir, "mails.db"), "--disable-version-check")
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = m.count(ctx, "nobody@example.com"); err == nil {
			return m, nil
		}
		if time.Now().After(deadline) {
			m.stop()
			return nil, fmt.Errorf("mailpit does not start: %w", err)
		}
	}
}

func (m *mailpit) stop() {
	_ = m.cmd.Process.Kill() // it keeps nothing that is wanted
	_ = m.cmd.Wait()
	_ = m.log.Close()
}

type found struct {
	Messages []struct {
		MessageID string `json:"MessageID"`
		Subject   string `json:"Subject"`
	} `json:"messages"`
}

func (m *mailpit) find(ctx context.Context, to string) (found, error) {
	var f found
	q := url.Values{"query": {"to:" + to}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.web+"/api/v1/search?"+q.Encode(), nil)
	if err != nil {
		return f, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return f, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return f, errors.New(answer.Status)
	}
	return f, json.NewDecoder(answer.Body).Decode(&f)
}

func (m *mailpit) count(ctx context.Context, to string) (int, error) {
	f, err := m.find(ctx, to)
	return len(f.Messages), err
}

// only returns the subject of the one mail that somebody got.
func (m *mailpit) only(ctx context.Context, to string) (string, error) {
	f, err := m.find(ctx, to)
	if err != nil {
		return "", err
	}
	if len(f.Messages) != 1 {
		return "", fmt.Errorf("%s got %d mails; want one", to, len(f.Messages))
	}
	return f.Messages[0].Subject, nil
}

// freeAddress finds a port that nobody has.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// configure fills the configuration's places in, and returns where it is.
func configure(dir string, places map[string]string) (string, error) {
	const from = "examples/welcome-email"
	text, err := os.ReadFile(filepath.Join(from, "outrigger.yaml"))
	if err != nil {
		return "", err
	}
	filled := string(text)
	for name, value := range places {
		filled = strings.ReplaceAll(filled, "@"+name+"@", value)
	}
	if err := os.CopyFS(filepath.Join(dir, "templates"), os.DirFS(filepath.Join(from, "templates"))); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "outrigger.yaml")
	return path, os.WriteFile(path, []byte(filled), 0o600)
}
