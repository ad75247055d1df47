package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	connectionGoal = 12  // KiB each
	spareFiles     = 200 // what this process and the agent have open besides
)

// idleConnections opens connections, makes one call on each and leaves them
// alone. Afterwards each must still carry a call.
func idleConnections(agent *sidecar.Agent) error {
	if err := allowFiles(uint64(*connections + spareFiles)); err != nil {
		return err
	}
	// What the agent needs for its first calls isn't a connection's.
	client := newClient()
	for range 100 {
		c, err := client.open(agent.Egress)
		if err != nil {
			return err
		}
		_ = c.Close()
	}
	time.Sleep(settle)
	before, err := agent.Usage()
	if err != nil {
		return err
	}
	open := make([]net.Conn, 0, *connections)
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for i := range *connections {
		c, err := client.open(agent.Egress)
		if err != nil {
			return fmt.Errorf("connection %d of %d: %w", i+1, *connections, err)
		}
		open = append(open, c)
	}
	more, err := grown(agent, before.Resident)
	if err != nil {
		return err
	}
	after, err := agent.Usage()
	if err != nil {
		return err
	}
	n := float64(*connections)
	each := more / n
	for i, c := range open {
		if err := client.call(c, 3); err != nil {
			return fmt.Errorf("connection %d of %d was idle and carries no call now: %w", i+1, *connections, err)
		}
	}
	return judge(each <= connectionGoal, connectionGoal, "%d idle connections: after a collection %.2f KiB each, of it heap %.2f and stacks %.2f, %.2f goroutines; resident as they stand %.2f KiB each",
		*connections, float64(after.Resident-before.Resident)/1024/n,
		float64(after.Heap-before.Heap)/1024/n, float64(after.Stacks-before.Stacks)/1024/n, float64(after.Goroutines-before.Goroutines)/n, each)
}

// allowFiles raises this process's limit of open files, and with it that of
// the agents it starts from now on, as far as the system lets it.
func allowFiles(n uint64) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if limit.Max < n {
		return fmt.Errorf("%d connections need %d open files, the hard limit is %d: raise it (ulimit -Hn) or ask for fewer (-connections)", *connections, n, limit.Max)
	}
	if limit.Cur >= n {
		return nil
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// client speaks just enough HTTP/2 for one call at a time on many connections,
// holding nothing for any of them but the socket.
type client struct {
	in      *bufio.Reader
	headers []byte
}

func newClient() *client {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0) // the same bytes on every connection
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/memory.Test/Unary"}, {":authority", "memory"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return &client{in: bufio.NewReader(nil), headers: b.Bytes()}
}

// open connects, exchanges prefaces and SETTINGS, and makes a call.
func (c *client) open(address string) (net.Conn, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	_ = http2.NewFramer(&out, nil).WriteSettings()
	_, err = conn.Write(out.Bytes())
	if err == nil {
		err = c.call(conn, 1)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// call makes one call on the stream and reads its answer to the end.
func (c *client) call(conn net.Conn, stream uint32) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	c.in.Reset(conn)
	var out bytes.Buffer
	framer := http2.NewFramer(&out, c.in)
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.headers, EndHeaders: true})
	_ = framer.WriteData(stream, true, make([]byte, 5)) // an empty message
	for answered := false; ; {
		if _, err := conn.Write(out.Bytes()); err != nil {
			return err
		}
		out.Reset()
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = framer.WritePing(true, f.Data)
			}
		case *http2.GoAwayFrame:
			return fmt.Errorf("the agent said GOAWAY: %v %s", f.ErrCode, f.DebugData())
		case *http2.RSTStreamFrame:
			return fmt.Errorf("the agent reset the call: %v", f.ErrCode)
		case *http2.HeadersFrame:
			if !f.StreamEnded() {
				continue
			}
			if !answered {
				return errors.New("the call was refused: it ended without a message")
			}
			// What came with it has to be acknowledged too.
			_, err := conn.Write(out.Bytes())
			return err
		case *http2.DataFrame:
			answered = true
		}
	}
}
