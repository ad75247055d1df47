package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/endpoints.Test/Call"

// usual is how long an endpoint works on a call, and slow when it is slow.
const (
	usual = 5 * time.Millisecond
	slow  = 20 * usual
)

// server is an endpoint: a real grpc-go server with the health service, which
// says SERVING whatever becomes of the calls.
type server struct {
	address string
	refuses atomic.Bool
	takes   atomic.Int64 // nanoseconds
	server  *grpc.Server
	mute    *mute // instead of server
}

// serveEndpoint is the program that an endpoint's process runs. Each line of
// stdin steers it and is answered by one; it ends with stdin.
func serveEndpoint(address string) error {
	s := &server{}
	s.takes.Store(int64(usual))
	if err := s.listen(address); err != nil {
		return err
	}
	fmt.Println(s.address)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := s.obey(lines.Text()); err != nil {
			return err
		}
		fmt.Println("done")
	}
	return nil
}

func (s *server) obey(word string) error {
	switch word {
	case "refuse":
		s.refuses.Store(true)
	case "answer":
		s.refuses.Store(false)
	case "slow":
		s.takes.Store(int64(slow))
	case "usual":
		s.takes.Store(int64(usual))
	case "mute":
		s.server.Stop()
		m, err := muteAt(s.address)
		s.mute = m
		return err
	case "speak":
		s.mute.stop()
		return s.listen(s.address)
	default:
		return fmt.Errorf("%q is no word for an endpoint", word)
	}
	return nil
}

func (s *server) listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s.address, s.server = l.Addr().String(), grpc.NewServer()
	s.register()
	go func() { _ = s.server.Serve(l) }()
	return nil
}

func (s *server) register() {
	healthpb.RegisterHealthServer(s.server, grpchealth.NewServer())
	s.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "endpoints.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			if s.refuses.Load() {
				return nil, status.Error(codes.Unavailable, "out of order")
			}
			time.Sleep(time.Duration(s.takes.Load()))
			return in, nil
		}}},
	}, nil)
}

// mute accepts connections and never speaks.
type mute struct {
	listener net.Listener
	mu       sync.Mutex
	held     []net.Conn
	done     chan struct{}
}

func muteAt(address string) (*mute, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	m := &mute{listener: l, done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.held = append(m.held, c)
			m.mu.Unlock()
		}
	}()
	return m, nil
}

func (m *mute) stop() {
	_ = m.listener.Close()
	<-m.done
	for _, c := range m.held {
		_ = c.Close()
	}
}
