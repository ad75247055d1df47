package main

import (
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
)

// addresses are endpoints by the thousand: one server behind a listener for each
// address, all of 127.0.0.0/8, so that nobody else's packets reach them.
type addresses struct {
	server    *server
	listeners map[string]net.Listener
	port      int // of all; 0: not known yet
	used      int
}

func newAddresses() *addresses {
	s := &server{server: grpc.NewServer()}
	s.takes.Store(int64(usual))
	s.register()
	return &addresses{server: s, listeners: make(map[string]net.Listener)}
}

// next serves one address more.
func (a *addresses) next() (string, error) {
	a.used++ // from 127.1.0.1 on
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:%d", 1+a.used>>16, a.used>>8&0xff, a.used&0xff, a.port))
	if err != nil {
		return "", err
	}
	a.port = l.Addr().(*net.TCPAddr).Port
	address := l.Addr().String()
	a.listeners[address] = l
	go func() { _ = a.server.server.Serve(l) }()
	return address, nil
}

// retire takes no connection at an address any more, after a time. Calls on
// those that there are go on.
func (a *addresses) retire(address string, later time.Duration) {
	l := a.listeners[address]
	delete(a.listeners, address)
	time.AfterFunc(later, func() { _ = l.Close() })
}

func (a *addresses) stop() { a.server.server.Stop() }
