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
	endpoints, discovering := 0, 0
	for _, s := range c.Services {
		endpoints += len(s.Endpoints)
		if !s.Discovery.None() {
			discovering++
		}
	}
	found := ""
	if discovering > 0 {
		found = " and those that " + count(discovering, "source") + " will find"
	}
	unmatched := "refused"
	if c.Unmatched.Dial {
		unmatched = "dialled"
	}
	return fmt.Sprintf("%s with %s%s; other authorities are %s", count(len(c.Services), "service"), count(endpoints, "endpoint"), found, unmatched), nil
}

// count writes "1 service", "2 services".
func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
