package conformance

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// played counts the rows that went as they should, by door.
var played = map[string]*atomic.Int64{core: {}, relayed: {}, intercepted: {}, byPermission: {}}

// TestMain says at the end how many rows each door was played.
func TestMain(m *testing.M) {
	status := m.Run()
	if n := played[core].Load(); n > 0 {
		fmt.Printf("conformance: %d rows: core %d, relay %d, interceptors %d, permits %d\n", total.Load(),
			n, played[relayed].Load(), played[intercepted].Load(), played[byPermission].Load())
	}
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Println(err)
			status = 1
		}
	}
	os.Exit(status)
}

var total atomic.Int64

// leastRows is how many behaviours the table has to show.
const leastRows = 120

// seeds is how often each row is played in the core, each time with other
// random numbers: none of them may matter.
const seeds = 20

// inCore plays a row in the core, if it is for it. fell is when things fell due.
func inCore(r *row) (h history, fell []time.Duration, err error) {
	if !r.isFor(core) {
		return nil, nil, nil
	}
	d := newCoreDoor(r, 0)
	h, err = play(r, d, nil)
	return h, d.fell, err
}

func TestCore(t *testing.T) {
	all := rows(t)
	if len(all) < leastRows {
		t.Errorf("the table has %d rows, want at least %d", len(all), leastRows)
	}
	total.Store(int64(len(all)))
	for _, r := range all {
		if !r.isFor(core) {
			continue
		}
		t.Run(r.file+"/"+r.Name, func(t *testing.T) {
			first, _, err := inCore(r)
			if err != nil {
				t.Fatal(err)
			}
			for seed := range uint64(seeds) {
				if _, err := play(r, newCoreDoor(r, seed+1), first); err != nil {
					t.Fatalf("with other random numbers: %v", err)
				}
			}
			played[core].Add(1)
		})
	}
}

func TestRelay(t *testing.T) {
	for _, r := range rows(t) {
		if !r.isFor(relayed) {
			continue
		}
		t.Run(r.file+"/"+r.Name, func(t *testing.T) {
			t.Parallel()
			expected, fell, err := inCore(r)
			if err != nil {
				t.Skipf("it goes wrong in the core already: %v", err)
			}
			d, err := newRelayDoor(r, fell)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := play(r, d, expected); err != nil {
				t.Fatal(err)
			}
			played[relayed].Add(1)
		})
	}
}

func TestInterceptors(t *testing.T) {
	inBubble(t, intercepted, func(r *row) (door, error) { return newInterceptDoor(r) })
}

func TestPermits(t *testing.T) {
	inBubble(t, byPermission, func(r *row) (door, error) { return newPermitDoor(r) })
}

// inBubble plays all rows in one synctest bubble, one after another: pools
// of timers that the packages keep do not survive one.
func inBubble(t *testing.T, name string, open func(*row) (door, error)) {
	synctest.Test(t, func(t *testing.T) {
		for _, r := range rows(t) {
			if !r.isFor(name) {
				continue
			}
			expected, _, err := inCore(r)
			if err != nil {
				continue // TestCore says so
			}
			d, err := open(r)
			if err == nil {
				_, err = play(r, d, expected)
			}
			if err != nil {
				t.Errorf("%s/%s: %v", r.file, r.Name, err)
				continue
			}
			played[name].Add(1)
		}
	})
}
