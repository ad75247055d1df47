//go:build linux

package tasks

import (
	"bufio"
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	_ "modernc.org/sqlite" // the driver by that name
)

// envLock makes this program a process that locks a database file until its
// standard input ends.
const envLock = "OUTRIGGER_TEST_LOCK"

func lockDatabase(path string, until io.Reader, say io.Writer) error {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		fmt.Fprintf(say, "refused: %v\n", err)
		return nil
	}
	fmt.Fprintln(say, "locked")
	_, _ = io.Copy(io.Discard, until)
	_, err = db.Exec("ROLLBACK")
	return err
}

// lock has another process take the write lock of a database file, and returns what
// lets it go. said is "locked", or why it could not.
func lock(t *testing.T, path string) (said string, unlock func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), envLock+"="+path)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Scan()
	return lines.Text(), func() {
		in.Close()
		_ = cmd.Wait()
	}
}
