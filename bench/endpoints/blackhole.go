package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// canDrop reports whether packets can be dropped here.
func canDrop() bool {
	_, err := exec.LookPath("nft")
	return err == nil && os.Geteuid() == 0
}

// blackhole drops what goes to the endpoint and what comes from it, without a
// FIN or an RST. end lets it through again.
func blackhole(p *process) (how string, end func() error, err error) {
	if !canDrop() {
		end = func() error { return p.cmd.Process.Signal(syscall.SIGCONT) }
		return "its process stopped (SIGSTOP): packets are not dropped, as this is not root or nft is missing", end, p.cmd.Process.Signal(syscall.SIGSTOP)
	}
	_, port, err := net.SplitHostPort(p.address)
	if err != nil {
		return "", nil, err
	}
	end, err = drop(port)
	return "its packets dropped by nft", end, err
}

// drop drops the packets of a TCP port on loopback. The nftables table belongs
// to a process (flag owner): the kernel removes it with that process, which ends
// with this one, however this one ends.
func drop(port string) (end func() error, err error) {
	table := fmt.Sprintf("outrigger_bench_%d", os.Getpid())
	owner := exec.Command("nft", "-i")
	var said bytes.Buffer
	owner.Stdout, owner.Stderr = &said, &said
	owner.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	words, err := owner.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := owner.Start(); err != nil {
		return nil, err
	}
	end = func() error { return errors.Join(words.Close(), owner.Wait()) }
	const rules = "table inet %s { flags owner; chain in { type filter hook input priority 0; iif lo tcp dport %s drop; iif lo tcp sport %s drop; }; }\n"
	if _, err := fmt.Fprintf(words, rules, table, port, port); err != nil {
		return nil, errors.Join(err, end())
	}
	for range 200 {
		if exec.Command("nft", "list", "table", "inet", table).Run() == nil {
			return end, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	err = end()
	return nil, errors.Join(fmt.Errorf("nft made no table %s: %s", table, strings.TrimSpace(said.String())), err)
}
