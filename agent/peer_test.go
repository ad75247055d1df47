package agent

import (
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// strangerVariable makes the test binary connect to a socket and say how that
// went, as another user.
const strangerVariable = "OUTRIGGER_TEST_STRANGER"

func TestStrangerProcess(t *testing.T) {
	path := os.Getenv(strangerVariable)
	if path == "" {
		t.Skip("runs only as another user's process, for TestASocketTakesOnlyTheUsersNamed")
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestASocketTakesOnlyTheUsersNamed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs to be root, so as to be another user too")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("/tmp", "uids")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "stranger")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, self, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, binary} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		about string
		uids  []uint32
		taken bool
	}{{"another user", []uint32{12345}, false}, {"a user that is named", []uint32{12345, nobody}, true}} {
		path := filepath.Join(dir, strings.ReplaceAll(tc.about, " ", "-"))
		l, err := listen("egress.address", "unix:"+path, tc.uids, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte{1})
				c.Close()
			}
		}()
		cmd := exec.Command(binary, "-test.run", "^TestStrangerProcess$")
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), strangerVariable+"="+path)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}

		out, err := cmd.CombinedOutput()

		if (err == nil) != tc.taken {
			t.Errorf("%s: taken %v, want %v\n%s", tc.about, err == nil, tc.taken, out)
		}
		own, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := own.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: the agent's own user: %v", tc.about, err)
		}
		own.Close()
		l.Close()
	}
}
