package agent

import (
	"fmt"

	"github.com/outrigger-rpc/outrigger/agent/config"
)

// Check reads a configuration file and says in a few words what it holds. The
// error names every issue with its line and column.
func Check(path string) (summary string, err error) {
	c, err := config.Load(path)
	if err != nil {
		return "", err
	}
	endpoints := 0
	for _, s := range c.Services {
		endpoints += len(s.Endpoints)
	}
	unmatched := "refused"
	if c.Unmatched.Dial {
		unmatched = "dialled"
	}
	return fmt.Sprintf("%s with %s; other authorities are %s", count(len(c.Services), "service"), count(endpoints, "endpoint"), unmatched), nil
}

// count writes "1 service", "2 services".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
