// Package postgres runs a PostgreSQL of a test's own, in a temporary folder and,
// where the test is root, as an unprivileged user. It can be stopped and started
// again where it was.
//
//	server, err := postgres.Start()
//	if errors.Is(err, postgres.ErrAbsent) { … }
//	defer server.Close()
//	… // server.URL()
package postgres

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrAbsent is for a machine that can't run one; the text says why.
var ErrAbsent = errors.New("PostgreSQL can't be run here")

// readyWithin is how long it may take to start, recovery included.
const readyWithin = time.Minute

// Server is a PostgreSQL with an empty database "outrigger". Make it with Start.
type Server struct {
	programs string // the folder of its programs
	dir      string
	port     int
	as       *syscall.SysProcAttr
	process  *exec.Cmd
	log      *os.File
}

// Start makes a cluster and starts it. Its durability is as it is by default: what
// it acknowledged is on disk.
func Start() (*Server, error) {
	s := &Server{programs: programs(), as: attributes()}
	if s.programs == "" {
		return nil, fmt.Errorf("%w: it is not installed (Debian: apt-get install postgresql)", ErrAbsent)
	}
	var err error
	if s.dir, err = os.MkdirTemp("", "postgres"); err != nil {
		return nil, err
	}
	if err := s.begin(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Server) begin() (err error) {
	if os.Getuid() == 0 { // initdb refuses root
		if s.as.Credential, err = unprivileged(); err != nil {
			return err
		}
		if err := os.Chown(s.dir, int(s.as.Credential.Uid), int(s.as.Credential.Gid)); err != nil {
			return err
		}
	}
	if s.log, err = os.Create(filepath.Join(s.dir, "log")); err != nil {
		return err
	}
	if err := s.run("initdb", "-D", s.data(), "-U", "outrigger", "-A", "trust", "--no-sync", "--locale=C", "-E", "UTF8"); err != nil {
		return err
	}
	if s.port, err = quietPort(); err != nil {
		return err
	}
	if err := s.Restart(); err != nil {
		return err
	}
	return s.Create("outrigger")
}

// programs returns the folder of the newest PostgreSQL that is installed; empty:
// there is none.
func programs() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	newest, version := "", 0
	for _, path := range found {
		if v, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))); v > version {
			newest, version = filepath.Dir(path), v
		}
	}
	if newest == "" {
		if path, err := exec.LookPath("initdb"); err == nil {
			return filepath.Dir(path)
		}
	}
	return newest
}

// unprivileged is Debian's user for it, or nobody.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("%w: it does not run as root, and there is no user postgres or nobody", ErrAbsent)
}

// quietPort returns a free port below those that the system gives to outgoing
// connections: none of them takes it while PostgreSQL is stopped.
func quietPort() (int, error) {
	for range 100 {
		port := 20000 + rand.IntN(10000) //nolint:gosec // no secret
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port from 20000 to 30000")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// URL is where its database "outrigger" is, for its owner, without a password.
func (s *Server) URL() string { return s.URLOf("outrigger") }

// URLOf is where another database is.
func (s *Server) URLOf(database string) string {
	return fmt.Sprintf("postgres://outrigger@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// Create makes another, empty database.
func (s *Server) Create(database string) error {
	return s.run("createdb", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port), "-U", "outrigger", database)
}

func (s *Server) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.programs, program), args...)
	cmd.SysProcAttr, cmd.Dir = s.as, s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// Restart starts it after Stop, and returns once it answers.
func (s *Server) Restart() error {
	s.process = exec.Command(filepath.Join(s.programs, "postgres"), "-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir, "-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200")
	s.process.SysProcAttr, s.process.Dir, s.process.Stderr = s.as, s.dir, s.log
	if err := s.process.Start(); err != nil {
		s.process = nil
		return err
	}
	var err error
	for began := time.Now(); time.Since(began) < readyWithin; time.Sleep(50 * time.Millisecond) {
		if err = s.run("pg_isready", "-q", "-U", "outrigger", "-d", "template1", "-h", "127.0.0.1", "-p", strconv.Itoa(s.port)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("PostgreSQL is not ready after %v: %w\n%s", readyWithin, err, s.Log())
}

// Stop ends it and waits for its end: SIGINT cuts its connections and shuts down,
// SIGQUIT ends it at once.
func (s *Server) Stop(how syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(how); err != nil {
		return err
	}
	_ = s.process.Wait() // its exit is the signal's
	s.process = nil
	return nil
}

// Log is the end of what it logged.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text[max(0, len(text)-3000):])
}

// Close ends it and deletes what it had.
func (s *Server) Close() error {
	err := s.Stop(syscall.SIGQUIT)
	if s.log != nil {
		s.log.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
