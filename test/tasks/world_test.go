//go:build linux

package tasks

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/mail"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// taskID is what each attempt carries.
const taskID = "outrigger-task-id"

// doMethod is the one method of the world's gRPC server: it does the work that its
// message names.
const doMethod = "/test.World/Do"

// world is what the agent's tasks act on: a gRPC server, an HTTP server and an
// SMTP server, in the test's process, which write into a ledger.
type world struct {
	*ledger
	calls, hooks, mails string // where they listen
	// takes is how long a piece of work takes at most, in nanoseconds: a kill meets
	// some in mid-work.
	takes atomic.Int64
	// hold, if set, is called for each piece of work before it is answered, with the
	// attempt's number as its header says it.
	hold atomic.Pointer[func(work, id, attempt string)]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ledger: newLedger()}
	w.takes.Store(int64(5 * time.Millisecond))
	w.calls = w.serveCalls(t)
	w.hooks = w.serveHooks(t)
	w.mails = w.serveMails(t)
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// do does a piece of work: the effect comes first, the answer a little later, as
// with a server that commits and then replies.
func (w *world) do(work, id, attempt string) {
	w.see(work, id)
	if hold := w.hold.Load(); hold != nil {
		(*hold)(work, id, attempt)
	}
	if d := w.takes.Load(); d > 0 {
		time.Sleep(time.Duration(rand.Int64N(d)))
	}
}

func (w *world) serveCalls(t *testing.T) (address string) {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.World", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Do",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			if in.GetValue() == probe { // the relay's load, no task
				return in, nil
			}
			md, _ := metadata.FromIncomingContext(ctx)
			w.do(in.GetValue(), strings.Join(md.Get(taskID), ","), strings.Join(md.Get("outrigger-task-attempt"), ","))
			return in, nil
		}}}}, nil)
	l := listen(t)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func (w *world) serveHooks(t *testing.T) (address string) {
	server := &http.Server{Handler: http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		attempt := r.Header.Get("outrigger-task-attempt")
		w.do(strings.TrimPrefix(r.URL.Path, "/"), r.Header.Get(taskID), attempt)
		fmt.Fprintf(out, `{"attempt":%q}`, attempt)
	})}
	l := listen(t)
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// serveMails is an SMTP server that takes every mail. Its subject is the work, its
// Message-ID the id.
func (w *world) serveMails(t *testing.T) (address string) {
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.mail(c)
		}
	}()
	return l.Addr().String()
}

// mail serves one SMTP connection.
func (w *world) mail(c net.Conn) {
	defer c.Close()
	text := textproto.NewConn(c)
	say := func(line string) { _ = text.PrintfLine("%s", line) }
	say("220 world ESMTP")
	for {
		line, err := text.ReadLine()
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
		case "EHLO":
			say("250-world")
			say("250 8BITMIME")
		case "HELO", "MAIL", "RCPT", "RSET", "NOOP":
			say("250 OK")
		case "DATA":
			say("354 go on")
			m, err := mail.ReadMessage(text.DotReader())
			if err != nil {
				say("554 that is no mail: " + err.Error())
				continue
			}
			if _, err := io.Copy(io.Discard, m.Body); err != nil {
				return
			}
			w.do(m.Header.Get("Subject"), m.Header.Get("Message-Id"), "")
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("502 " + verb + " is not known here")
		}
	}
}
