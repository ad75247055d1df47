package agent

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenTakesAFreePort(t *testing.T) {
	l, err := listen("egress.address", "127.0.0.1:0", nil, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a := displayAddress(l); !strings.HasPrefix(a, "127.0.0.1:") || strings.HasSuffix(a, ":0") {
		t.Errorf("address %q", a)
	}
}

func TestListenOnATakenPortNamesFieldAndRemedy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, err = listen("api.address", taken.Addr().String(), nil, slog.Default())
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"api.address", taken.Addr().String(), "another process", "lsof"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %q", want, err)
		}
	}
}

func TestListenUnixIsForThisUserOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	l, err := listen("egress.address", "unix:"+path, nil, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	if a := displayAddress(l); a != "unix:"+path {
		t.Errorf("address %q", a)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("mode %o, want 600", mode)
	}
	l.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is still there after Close: %v", err)
	}
}

func TestListenUnixReplacesAStaleSocketOnly(t *testing.T) {
	dir := t.TempDir()
	t.Run("stale", func(t *testing.T) {
		path := filepath.Join(dir, "stale.sock")
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false) // as after kill -9
		dead.Close()
		l, err := listen("egress.address", "unix:"+path, nil, slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
	})
	t.Run("alive", func(t *testing.T) {
		path := filepath.Join(dir, "alive.sock")
		alive, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer alive.Close()
		_, err = listen("egress.address", "unix:"+path, nil, slog.Default())
		if err == nil || !strings.Contains(err.Error(), "another process answers") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no socket", func(t *testing.T) {
		path := filepath.Join(dir, "notes.txt")
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := listen("egress.address", "unix:"+path, nil, slog.Default())
		if err == nil || !strings.Contains(err.Error(), "not a socket") {
			t.Errorf("got %v", err)
		}
		if content, _ := os.ReadFile(path); string(content) != "mine" {
			t.Errorf("the file was touched: %q", content)
		}
	})
}

func TestListenSaysWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ name, address, want string }{
		{"no such address", "192.0.2.1:7600", "this machine has no address"},
		{"no such folder", "unix:/nowhere/at/all.sock", "does not exist"},
		{"too long", "unix:/tmp/" + strings.Repeat("x", 200), "too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := listen("admin.address", test.address, nil, slog.Default())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "admin.address") {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
