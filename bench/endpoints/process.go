package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// process is an endpoint in a process of its own, which can be killed and
// stopped.
type process struct {
	address string
	cmd     *exec.Cmd
	words   io.WriteCloser
	answers *bufio.Scanner
}

// startProcess runs this program as an endpoint. An empty address: any port.
func startProcess(address string) (*process, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-endpoint", address)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	words, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, words: words, answers: bufio.NewScanner(answers)}
	if p.address, err = p.answer(); err != nil {
		_ = p.kill()
		return nil, err
	}
	return p, nil
}

func (p *process) answer() (string, error) {
	if !p.answers.Scan() {
		return "", errors.Join(errors.New("an endpoint's process ended"), p.answers.Err())
	}
	return strings.TrimSpace(p.answers.Text()), nil
}

// tell steers the endpoint and waits until it is so.
func (p *process) tell(word string) error {
	if _, err := fmt.Fprintln(p.words, word); err != nil {
		return err
	}
	_, err := p.answer()
	return err
}

// kill ends the process without a word to anyone.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait() // its exit is the signal's
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
