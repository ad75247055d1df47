//go:build linux

package tasks

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// kills is how often the agent is killed, for each store.
func kills() int { return some(4, 25) }

// seeded returns the run's random numbers and says their seed.
func seeded(t *testing.T) (uint64, *rand.Rand) {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("OUTRIGGER_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("OUTRIGGER_TEST_SEED %q: %v", s, err)
		}
	}
	t.Logf("OUTRIGGER_TEST_SEED=%d", seed)
	return seed, rand.New(rand.NewPCG(seed, 0))
}

// killed kills the agent again and again while clients submit, and then sees that
// everything acknowledged was done.
func killed(t *testing.T, store string) {
	w := newWorld(t)
	seed, random := seeded(t)
	a := configure(t, "the agent", w, block(w, store))
	client := a.dial()
	a.start()
	l := startLoad(t, w, client, seed, 16)
	began := time.Now()
	unready := 0
	for range kills() {
		// From the moment it starts: some kills meet it before it serves.
		time.Sleep(100*time.Millisecond + time.Duration(random.Int64N(int64(2*time.Second))))
		if _, _, err := a.get("/readyz"); err != nil {
			unready++
		}
		a.kill()
		a.spawn()
	}
	a.ready()
	time.Sleep(time.Second)
	l.stop()
	t.Logf("%d kills in %v, %d of them before the agent served; %d submits had to be repeated, %d of those were there already",
		kills(), time.Since(began).Round(time.Second), unready, l.again.Load(), l.existed.Load())
	for text, n := range l.odd {
		t.Errorf("%d submits failed and not with UNAVAILABLE: %s", n, text)
	}

	w.settle(t, client, 3*time.Minute)

	if n := len(w.ids()); n < 50*kills() {
		t.Errorf("only %d tasks were accepted: the kills met hardly any work", n)
	}
	if t.Failed() {
		t.Logf("%s's log:\n%s", a.name, a.tail())
	}
}

func TestEveryAcknowledgedTaskOutlivesKillsSQLite(t *testing.T) {
	killed(t, sqlite(filepath.Join(t.TempDir(), "tasks.db")))
}

func TestEveryAcknowledgedTaskOutlivesKillsPostgres(t *testing.T) {
	killed(t, onPostgres(startPostgres(t)))
}

// A ledger that would let a loss pass would make all of this worth nothing.
func TestTheLedgerTellsWhatIsWrong(t *testing.T) {
	for _, row := range []struct {
		name    string
		effects [][2]string // what, and with which id
		wrong   int
	}{
		{"each once", [][2]string{{"a", "id-a"}, {"c/1", "s1"}, {"c/2", "s2"}}, 0},
		{"one repeated under the same id", [][2]string{{"a", "id-a"}, {"a", "id-a"}, {"c/1", "s1"}, {"c/2", "s2"}}, 0},
		{"a Message-ID of the task's id", [][2]string{{"a", "<id-a@example.com>"}, {"c/1", "s1"}, {"c/2", "s2"}}, 0},
		{"one lost", [][2]string{{"c/1", "s1"}, {"c/2", "s2"}}, 1},
		{"one under another id", [][2]string{{"a", "id-b"}, {"c/1", "s1"}, {"c/2", "s2"}}, 1},
		{"one repeated under another id", [][2]string{{"a", "id-a"}, {"a", "id-b"}, {"c/1", "s1"}, {"c/2", "s2"}}, 1},
		{"a step lost", [][2]string{{"a", "id-a"}, {"c/1", "s1"}}, 1},
		{"steps the wrong way round", [][2]string{{"a", "id-a"}, {"c/2", "s2"}, {"c/1", "s1"}}, 1},
		{"undone", [][2]string{{"a", "id-a"}, {"c/1", "s1"}, {"c/2", "s2"}, {"c/undo", "s3"}}, 1},
		{"without an id", [][2]string{{"a", "id-a"}, {"c/1", ""}, {"c/2", "s2"}}, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLedger()
			l.accept("a", accepted{id: "id-a", effects: []string{"a"}})
			l.accept("c", accepted{id: "id-c", effects: []string{"c/1", "c/2"}, never: []string{"c/undo"}})
			for _, e := range row.effects {
				l.see(e[0], e[1])
				time.Sleep(time.Microsecond)
			}

			b := l.audit()

			if len(b.wrong) != row.wrong {
				t.Errorf("%d findings, want %d: %v", len(b.wrong), row.wrong, b.wrong)
			}
		})
	}
	l := newLedger()
	l.accept("a", accepted{id: "id", effects: []string{"a"}})
	l.accept("b", accepted{id: "id", effects: []string{"b"}})
	l.see("a", "id")
	l.see("b", "id")
	if b := l.audit(); fmt.Sprint(b.wrong) != "[a and b have one id: id]" {
		t.Errorf("one id for two: %v", b.wrong)
	}
}
