// Command tasks measures the task executor against its goals, beside bare River
// (the library that it keeps its tasks with) on the same database in the same run,
// in rounds that take turns:
//
//	submit   64 submitters at once: bare River, the store alone, the agent's API
//	lone     one submit at a time: how long it takes
//	execute  tasks with nothing to do: how many a second
//	start    how long after its submit a task begins, when nothing else happens
//	million  a million tasks wait: listing, submitting, memory (not by default)
//
//	make bench-tasks
//	go run ./bench/tasks -only submit -stores sqlite   # needs bin/outrigger (make build)
//
// It exits with 1 if a goal is missed. PostgreSQL is started where it is installed,
// in a temporary folder; else it is left out, and that is said. What the disk does
// at a commit decides much of this: -dir says where the databases are.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	"github.com/outrigger-rpc/outrigger/test/postgres"
)

// part is one of the things measured. It is given a store's name.
type part struct {
	name   string
	run    func(*bench) ([]goals.Goal, error)
	stores []string // it is measured on these
	asked  bool     // only where it is asked for
}

var parts = []part{
	{name: "submit", run: submitPart, stores: []string{onSQLite, onPostgres}},
	{name: "lone", run: lonePart, stores: []string{onSQLite, onPostgres}},
	{name: "execute", run: executePart, stores: []string{onSQLite, onPostgres}},
	{name: "start", run: startPart, stores: []string{onSQLite, onPostgres}},
	{name: "million", run: millionPart, stores: []string{onSQLite}, asked: true},
}

const (
	onSQLite   = "sqlite"
	onPostgres = "postgres"
)

var (
	binary = flag.String("agent", "bin/outrigger", "the agent's binary")
	only   = flag.String("only", "", "run only these, by commas: submit lone execute start million")
	stores = flag.String("stores", onSQLite+","+onPostgres, "on these, by commas")
	rounds = flag.Int("rounds", 5, "how often each is measured, in turns; the median counts")
	length = flag.Duration("length", 2*time.Second, "how long each measurement of a rate lasts")
	count  = flag.Int("tasks", 5000, "how many tasks each round executes")
	queued = flag.Int("queued", 1_000_000, "how many tasks wait in the part million")
	batch  = flag.Int("batch", 100, "how many tasks each submit has that fills the part million")
	folder = flag.String("dir", "", "where the databases are made; a disk, and no file system in memory (default: the system's temporary folder)")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench-tasks:", err)
		os.Exit(1)
	}
}

// bench is one part on one store.
type bench struct {
	store  string
	dir    string           // for its databases
	server *postgres.Server // nil: SQLite
	made   int
	open   closers
}

func run() (err error) {
	known := make([]string, 0, len(parts))
	for _, p := range parts {
		known = append(known, p.name)
	}
	var wanted []string
	if *only != "" {
		wanted = strings.Split(*only, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-only: %q is none of %s", name, strings.Join(known, ", "))
		}
	}
	if *rounds < 1 || *count < 1 || *queued < 1 || *batch < 1 || *length <= 0 {
		return errors.New("-rounds, -tasks, -queued, -batch and -length: want more than 0 of each")
	}
	dir, err := os.MkdirTemp(*folder, "bench-tasks")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if memory(dir) {
		fmt.Printf("NOTE: %s is in memory: a commit costs nothing there, and the figures say nothing of a disk; -dir names another folder\n", dir)
	}
	var server *postgres.Server
	var on []string
	for _, store := range strings.Split(*stores, ",") {
		switch store {
		case onSQLite:
			on = append(on, store)
		case onPostgres:
			switch server, err = postgres.Start(); {
			case errors.Is(err, postgres.ErrAbsent):
				fmt.Printf("SKIPPED postgres: %v\n", err)
			case err != nil:
				return err
			default:
				defer func() { err = errors.Join(err, server.Close()) }()
				on = append(on, store)
			}
		default:
			return fmt.Errorf("-stores: %q is none of %s, %s", store, onSQLite, onPostgres)
		}
	}
	var tally goals.Tally
	for _, p := range parts {
		if len(wanted) == 0 && p.asked || len(wanted) > 0 && !slices.Contains(wanted, p.name) {
			continue
		}
		for _, store := range on {
			if !slices.Contains(p.stores, store) {
				continue
			}
			fmt.Println(busy())
			b := &bench{store: store, dir: dir}
			if store == onPostgres {
				b.server = server
			}
			found, err := p.run(b)
			if err = errors.Join(err, b.open.close()); err != nil {
				return fmt.Errorf("%s on %s: %w", p.name, store, err)
			}
			tally.Print(found)
		}
	}
	return tally.Err()
}

// busy says what else the machine does: figures beside which it matters are worth
// less, ratios somewhat more.
func busy() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load average unknown"
	}
	load, _, _ := strings.Cut(string(text), " ")
	return fmt.Sprintf("(%d processors, load average %s)", runtime.NumCPU(), load)
}

// memory reports whether a folder is in memory, where no commit waits for a disk.
func memory(dir string) bool {
	const tmpfs, ramfs = 0x01021994, 0x858458f6 // statfs(2)
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return false
	}
	kind := int64(s.Type) //nolint:unconvert // it is narrower elsewhere
	return kind == tmpfs || kind == ramfs
}

// closers are closed in the opposite order.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() error {
	var errs []error
	for _, f := range slices.Backward(*c) {
		errs = append(errs, f())
	}
	*c = nil
	return errors.Join(errs...)
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}

// quantile of durations, in milliseconds.
func quantile(took []time.Duration, q float64) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]) / float64(time.Millisecond)
}
