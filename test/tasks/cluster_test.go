//go:build linux

package tasks

import (
	"errors"
	"syscall"
	"testing"

	"github.com/outrigger-rpc/outrigger/test/postgres"
)

// cluster is a PostgreSQL of the test's own, which can be stopped and started again.
type cluster struct {
	t *testing.T
	*postgres.Server
}

// startPostgres starts one, or skips the test.
func startPostgres(t *testing.T) *cluster {
	t.Helper()
	server, err := postgres.Start()
	if errors.Is(err, postgres.ErrAbsent) {
		t.Skip("SKIPPED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("PostgreSQL's last words:\n%s", server.Log())
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return &cluster{t, server}
}

func (c *cluster) stop(how syscall.Signal) {
	c.t.Helper()
	if err := c.Stop(how); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) start() {
	c.t.Helper()
	if err := c.Restart(); err != nil {
		c.t.Fatal(err)
	}
}
