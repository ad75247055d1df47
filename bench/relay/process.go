package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a proxy, or the upstream, under measurement.
type process struct {
	name, address string
	cmd           *exec.Cmd
	log           *os.File
}

// errMissing marks a program that is not on this machine.
var errMissing = errors.New("not installed")

// start runs a command with what env adds to the environment, and waits until
// it listens on address.
func start(dir, name, address string, env []string, command string, args ...string) (*process, error) {
	if _, err := exec.LookPath(command); err != nil {
		return nil, fmt.Errorf("%s: %w", command, errMissing)
	}
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(command, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, address: address, cmd: cmd, log: log}
	for range 200 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return p, nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	p.stop()
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("does not listen on %s after 5 s:\n%s", address, text)
}

func (p *process) stop() {
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	p.cmd.Wait()
	p.log.Close()
}

// cpu returns the CPU time of the process and its children so far.
func (p *process) cpu() (time.Duration, error) {
	total := time.Duration(0)
	pids := []int{p.cmd.Process.Pid}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pids[0], pids[0])); err == nil {
		for _, f := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	for _, pid := range pids {
		ns, err := taskTime(pid)
		if err != nil {
			return 0, err
		}
		total += ns
	}
	return total, nil
}

// taskTime adds up the run time of all threads, in nanoseconds: the first
// figure of schedstat. Threads that ended in between don't count, which the
// proxies measured here don't have.
func taskTime(pid int) (time.Duration, error) {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	total := time.Duration(0)
	for _, t := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, t.Name()))
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ns)
	}
	return total, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
