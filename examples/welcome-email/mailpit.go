package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

// mailpit is a real SMTP server that shows what it got.
type mailpit struct {
	smtp, web string
	cmd       *exec.Cmd
	log       *os.File
}

// startMailpit builds Mailpit, which takes a minute at the first time, and starts it.
// It takes mail to example.com, and refuses all other for good.
func startMailpit(ctx context.Context, dir string) (*mailpit, error) {
	binary, err := filepath.Abs(filepath.Join(".cache", "examples", "mailpit"))
	if err != nil {
		return nil, err
	}
	if err := stage.Run(ctx, filepath.Join("examples", "welcome-email", "mailpit"), "go", "build", "-o", binary, "github.com/axllent/mailpit"); err != nil {
		return nil, err
	}
	m := &mailpit{}
	for _, address := range []*string{&m.smtp, &m.web} {
		if *address, err = freeAddress(); err != nil {
			return nil, err
		}
	}
	if m.log, err = os.Create(filepath.Join(dir, "mailpit.log")); err != nil {
		return nil, err
	}
	m.cmd = exec.CommandContext(ctx, binary, "--smtp", m.smtp, "--listen", m.web, "--smtp-allowed-recipients", `@example\.com$`, "--database", filepath.Join(dir, "mails.db"), "--disable-version-check")
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		m.log.Close()
		return nil, err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := m.all(ctx)
		if err == nil {
			return m, nil
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			m.stop()
			said, _ := os.ReadFile(m.log.Name())
			return nil, fmt.Errorf("mailpit does not start: %w\n%s", err, said)
		}
	}
}

func (m *mailpit) stop() {
	_ = m.cmd.Process.Kill() // it keeps nothing that is wanted
	_ = m.cmd.Wait()
	m.log.Close()
}

// letter is a mail that Mailpit got.
type letter struct {
	MessageID string
	Subject   string
	To        []struct{ Address string }
}

// most is how many mails Mailpit shows; there are fewer.
const most = 500

// all returns every mail that it got.
func (m *mailpit) all(ctx context.Context) ([]letter, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/api/v1/messages?limit=%d", m.web, most), nil)
	if err != nil {
		return nil, err
	}
	answer, err := direct.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("mailpit: %s: %s", answer.Status, text)
	}
	var list struct {
		Total    int
		Messages []letter
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	if list.Total != len(list.Messages) {
		return nil, fmt.Errorf("mailpit has %d mails and shows %d", list.Total, len(list.Messages))
	}
	return list.Messages, nil
}

// direct asks without a proxy that the machine may have.
var direct = &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Second}

// to returns the mails that an address got.
func (m *mailpit) to(ctx context.Context, address string) (got []letter, err error) {
	all, err := m.all(ctx)
	for _, one := range all {
		for _, to := range one.To {
			if to.Address == address {
				got = append(got, one)
			}
		}
	}
	return got, err
}

// freeAddress finds a port that nobody has: an agent that starts again, and Mailpit,
// must be told theirs.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
