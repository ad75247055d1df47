// Package tasks breaks the agent's task executor from outside: the built binary
// runs as a process of its own, on a real file or a real PostgreSQL, and is
// killed, stopped, starved of disk and cut off from its database while clients
// submit. What was acknowledged must be done, whatever happens.
//
//	go test ./test/tasks                 # a few of each, about a minute
//	make test-tasks                      # as often and as long as the goals ask
//
// What effects there were is not asked of the agent: servers in the test's own
// process keep a ledger of them (ledger_test.go), by what was to be done and by
// the id that came with it.
//
// PostgreSQL is started where its programs are installed (Debian: postgresql),
// in a temporary folder and as an unprivileged user; without it those tests are
// skipped and say so. A full disk and a file that turns read-only need root.
//
// It kills, stops and mounts as Linux does, and is empty elsewhere. All of it is tests: there is nothing to import.
package tasks
