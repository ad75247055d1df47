// Command memory measures what streams cost the agent in memory: a long stream
// whose reader stops, beside other calls, and many idle streams.
//
//	make bench-memory
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	stalledMessages = 1024 // of 1 MiB
	connections     = 10
	streamsEach     = 1000
	settle          = 2 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-memory:", err)
		os.Exit(1)
	}
}

func run() error {
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := newServer()
	go func() { _ = server.Serve(upstream) }()
	defer server.Stop()
	agent, egress, err := startAgent(upstream.Addr().String())
	if err != nil {
		return err
	}
	defer func() { _ = agent.Process.Kill(); _ = agent.Wait() }()
	pid := agent.Process.Pid
	cc, err := dial(egress)
	if err != nil {
		return err
	}
	defer cc.Close()

	if _, err := p99(cc); err != nil { // warms up
		return err
	}
	quiet, err := p99(cc)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	before := resident(pid)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stalled, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/memory.Test/Down")
	if err != nil {
		return err
	}
	if err := errors.Join(stalled.SendMsg(wrapperspb.Bytes(nil)), stalled.CloseSend()); err != nil {
		return err
	}
	time.Sleep(settle) // nobody reads
	grown := resident(pid) - before
	beside, err := p99(cc)
	if err != nil {
		return err
	}
	fmt.Printf("a 1 GiB stream whose reader stops: %+d KiB (goal 2048); p99 of other calls %v before, %v beside it\n", grown, quiet, beside)
	cancel()
	time.Sleep(settle)
	return idle(pid, egress)
}

// idle opens streams that do nothing.
func idle(pid int, egress string) error {
	before := resident(pid)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range connections {
		cc, err := dial(egress)
		if err != nil {
			return err
		}
		defer cc.Close()
		for range streamsEach {
			s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/memory.Test/Wait")
			if err != nil {
				return err
			}
			if err := errors.Join(s.SendMsg(wrapperspb.Bytes(nil)), s.RecvMsg(new(wrapperspb.BytesValue))); err != nil {
				return err
			}
		}
	}
	time.Sleep(settle)
	each := float64(resident(pid)-before) / (connections * streamsEach)
	fmt.Printf("%d idle streams: %.2f KiB each (goal 4)\n", connections*streamsEach, each)
	return nil
}

func newServer() *grpc.Server {
	unary := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.BytesValue)
		return in, decode(in)
	}
	down := func(_ any, s grpc.ServerStream) error {
		message := wrapperspb.Bytes(make([]byte, 1<<20))
		for range stalledMessages {
			if err := s.SendMsg(message); err != nil {
				return err
			}
		}
		return nil
	}
	wait := func(_ any, s grpc.ServerStream) error {
		in := new(wrapperspb.BytesValue)
		if err := errors.Join(s.RecvMsg(in), s.SendMsg(in)); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "memory.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Down", ServerStreams: true, Handler: down},
			{StreamName: "Wait", ServerStreams: true, ClientStreams: true, Handler: wait},
		},
	}, nil)
	return server
}

// startAgent runs bin/outrigger in front of the upstream.
func startAgent(upstream string) (cmd *exec.Cmd, egress string, err error) {
	dir, err := os.MkdirTemp("", "bench-memory")
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	config := filepath.Join(dir, "outrigger.yaml")
	text := fmt.Sprintf("egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n"+
		"services: [{name: memory, endpoints: {static: [{address: %q}]}}]\n", upstream)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	cmd = exec.Command("bin/outrigger", "run", "-c", config)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "outrigger: ready egress="); ok {
			egress, _, _ = strings.Cut(rest, " ")
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return cmd, egress, nil
		}
	}
	return nil, "", errors.Join(errors.New("the agent did not become ready"), cmd.Wait())
}

func dial(egress string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+egress, grpc.WithAuthority("memory"), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// p99 makes calls one after another.
func p99(cc *grpc.ClientConn) (time.Duration, error) {
	const calls = 2000
	took := make([]time.Duration, calls)
	for i := range took {
		start := time.Now()
		if err := cc.Invoke(context.Background(), "/memory.Test/Unary", wrapperspb.Bytes(make([]byte, 100)), new(wrapperspb.BytesValue)); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[calls*99/100], nil
}

// resident returns a process's resident memory in KiB.
func resident(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	kib := 0
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	_, _ = fmt.Sscan(rest, &kib)
	return kib
}
