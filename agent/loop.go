package agent

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// loopPeer is what the agent's own calls are said to come from, in logs.
const loopPeer = "tasks"

// loop connects the agent with its own egress: what it calls itself goes the way of
// all calls, under the same policies. It is a pair of sockets that nobody else can
// reach, so that neither TLS nor users of the egress address are asked for.
func (a *Agent) loop(context.Context) (net.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("the agent can't connect to itself: %w", err)
	}
	a.relay.Join(theirs, loopPeer)
	return ours, nil
}

func socketPair() (one, other net.Conn, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(pair[0])
	unix.CloseOnExec(pair[1])
	if one, err = connOf(pair[0]); err != nil {
		_ = unix.Close(pair[1]) // nothing was written to it
		return nil, nil, err
	}
	if other, err = connOf(pair[1]); err != nil {
		one.Close()
		return nil, nil, err
	}
	return one, other, nil
}

// connOf takes a descriptor over.
func connOf(descriptor int) (net.Conn, error) {
	file := os.NewFile(uintptr(descriptor), "loop")
	defer file.Close() // FileConn works on a copy
	return net.FileConn(file)
}
