package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/outrigger-rpc/outrigger/balancer"
)

const (
	// drainsFile is the name in the state folder.
	drainsFile    = "drained.json"
	drainsVersion = 1
	maxDrainsFile = 16 << 20
)

// drains are the endpoints that operators drained: by service and address, so
// that one which goes and comes back is drained still. With a state folder they
// outlive a restart. Safe for concurrent use.
type drains struct {
	logger *slog.Logger
	path   string // empty: they don't

	mu    sync.Mutex
	known map[drained]bool
}

// drained names an endpoint.
type drained struct {
	Service string `json:"service"`
	Address string `json:"address"`
}

// drainsText is what stands in the file.
type drainsText struct {
	Version int       `json:"version"`
	Drained []drained `json:"drained"`
}

// openDrains reads what an earlier run left in the folder. A file that can't be
// understood is put aside and told of: calls to what was drained are better than
// no agent.
func openDrains(dir string, logger *slog.Logger) (*drains, error) {
	d := &drains{logger: logger, known: make(map[drained]bool)}
	if dir == "" {
		return d, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	d.path = filepath.Join(dir, drainsFile)
	data, err := os.ReadFile(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return nil, fmt.Errorf("state.dir: %w", err)
	}
	text, err := parseDrains(data)
	if err != nil {
		aside := d.path + ".broken"
		logger.Error("state.dir: the list of drained endpoints can't be understood: none is drained, and the file is put aside; drain again what should be",
			"file", d.path, "aside", aside, "error", err)
		if err := os.Rename(d.path, aside); err != nil {
			return nil, fmt.Errorf("state.dir: %w", err)
		}
		return d, nil
	}
	for _, e := range text.Drained {
		d.known[e] = true
	}
	return d, nil
}

// parseDrains reads and checks the file's text.
func parseDrains(data []byte) (*drainsText, error) {
	if len(data) > maxDrainsFile {
		return nil, fmt.Errorf("it has more than %d MiB", maxDrainsFile>>20)
	}
	var text drainsText
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&text); err != nil {
		return nil, err
	}
	if text.Version != drainsVersion {
		return nil, fmt.Errorf("version %d, want %d", text.Version, drainsVersion)
	}
	for i, e := range text.Drained {
		if e.Service == "" || e.Address == "" {
			return nil, fmt.Errorf("drained[%d] has no service or no address", i)
		}
	}
	return &text, nil
}

// set takes an operator's word on an endpoint.
func (d *drains) set(service, address string, on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := drained{service, address}
	if d.known[e] == on {
		return
	}
	if on {
		d.known[e] = true
	} else {
		delete(d.known, e)
	}
	if d.path == "" {
		return
	}
	if err := d.write(); err != nil {
		d.logger.Error("state.dir: which endpoints are drained was not written: it would not outlive a restart", "file", d.path, "error", err)
	}
}

// write replaces the file: whoever reads it, and a crash, finds the old list or
// the new one. d.mu is held.
func (d *drains) write() error {
	text := drainsText{Version: drainsVersion, Drained: []drained{}}
	for e := range d.known {
		text.Drained = append(text.Drained, e)
	}
	slices.SortFunc(text.Drained, func(a, b drained) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Address, b.Address))
	})
	data, err := json.MarshalIndent(text, "", "  ")
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(d.path), drainsFile+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next.Name()) }() // gone already where all went well
	_, err = next.Write(append(data, '\n'))
	if err == nil {
		err = next.Sync()
	}
	if err = errors.Join(err, next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), d.path)
}

// apply drains those of a service's endpoints that are to be.
func (d *drains) apply(service string, endpoints []*balancer.Endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.known) == 0 {
		return
	}
	for _, e := range endpoints {
		if d.known[drained{service, e.Address()}] {
			e.SetDraining(true)
		}
	}
}

// Drained hears of an endpoint that an operator drained or let come back. It
// implements api.Agent.
func (s source) Drained(service, address string, on bool) {
	s.agent.drains.set(service, address, on)
	if !on {
		s.agent.registry.hurry(service, address)
	}
}
