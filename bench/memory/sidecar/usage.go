package sidecar

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Usage is what the agent holds at one moment.
type Usage struct {
	Goroutines  int
	Descriptors int
	// Heap is what live objects take, after garbage collection; Stacks is
	// what goroutines' stacks take. Bytes.
	Heap, Stacks int
	// Resident is the process's resident memory after that. Bytes.
	Resident int
}

// Usage collects garbage in the agent and reads what is left.
func (a *Agent) Usage() (Usage, error) {
	var u Usage
	// What sits in a sync.Pool survives one collection, and a finalizer's
	// object another.
	for range 3 {
		text, err := a.get("/debug/pprof/heap?debug=1&gc=1")
		if err != nil {
			return u, err
		}
		u.Heap, u.Stacks = number(text, "# HeapAlloc = "), number(text, "# Stack = ")
	}
	text, err := a.get("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return u, err
	}
	u.Goroutines = number(text, "goroutine profile: total ")
	if u.Heap == 0 || u.Goroutines == 0 {
		return u, errors.New("the agent's profiles don't say what its heap and goroutines are")
	}
	open, err := a.Open()
	if err != nil {
		return u, err
	}
	for _, n := range open {
		u.Descriptors += n
	}
	u.Resident, err = a.Resident()
	return u, err
}

// Resident returns the agent's resident memory in bytes, as it is.
func (a *Agent) Resident() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return number(string(text), "VmRSS:") << 10, nil
}

// CPU returns the CPU time that the agent has used so far, to a hundredth of a
// second.
func (a *Agent) CPU() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// Of what follows the name in brackets the 12th and 13th are the time in user
	// and in kernel mode, in ticks of 10 ms.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("%q does not say what the agent used", text)
	}
	return 10 * time.Millisecond * time.Duration(number(fields[11], "")+number(fields[12], "")), nil
}

// Open counts the agent's open descriptors by kind: "socket", "anon_inode",
// or a file's path.
func (a *Agent) Open() (map[string]int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", a.cmd.Process.Pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	open := make(map[string]int)
	for _, e := range entries {
		if to, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			kind, _, _ := strings.Cut(to, ":")
			open[kind]++
		}
	}
	return open, nil
}

// Goroutines counts the agent's goroutines by where they stand: up to three
// functions, the innermost of the agent's own or of a library first.
func (a *Agent) Goroutines() (map[string]int, error) {
	text, err := a.get("/debug/pprof/goroutine?debug=1")
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for _, group := range strings.Split(text, "\n\n") {
		var count int
		var stack []string
		for _, line := range strings.Split(group, "\n") {
			if frame, ok := strings.CutPrefix(line, "#\t"); ok {
				// The address, the function with its offset, the place.
				if f := strings.Fields(frame); len(f) > 1 && len(stack) < 3 && !strings.HasPrefix(f[1], "internal/poll.") && !strings.HasPrefix(f[1], "runtime.") {
					function, _, _ := strings.Cut(f[1], "+")
					stack = append(stack, function)
				}
			} else if n := number(line, ""); strings.Contains(line, " @ ") {
				count = n
			}
		}
		if len(stack) == 0 {
			stack = []string{"the runtime"}
		}
		if count > 0 {
			counts[strings.Join(stack, " ← ")] += count
		}
	}
	return counts, nil
}

// get reads a page of the admin port over a connection of its own, so that
// none stays behind to be counted.
func (a *Agent) get(path string) (string, error) {
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + a.Admin + path)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("the agent's %s answered %s", path, response.Status)
	}
	return string(text), err
}

// number returns the number that follows a label, 0 if there is none. An empty
// label stands at the text's beginning.
func number(text, label string) int {
	n := 0
	_, rest, found := strings.Cut(text, label)
	if found {
		_, _ = fmt.Sscan(rest, &n)
	}
	return n
}
