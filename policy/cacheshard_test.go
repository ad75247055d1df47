package policy

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestCacheProperties drives a cache with lookups, reports, leaves and waits in
// any order and checks it against what any cache must keep to.
func TestCacheProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := CachePolicy{
			TTL:                  time.Duration(rapid.IntRange(1, 10).Draw(t, "ttl")) * time.Second,
			StaleWhileRevalidate: time.Duration(rapid.IntRange(0, 5).Draw(t, "stale while revalidate")) * time.Second,
			StaleIfError:         time.Duration(rapid.IntRange(0, 20).Draw(t, "stale if error")) * time.Second,
			MaxBytes:             int64(rapid.IntRange(600, 3000).Draw(t, "max bytes")),
			MaxEntryBytes:        rapid.IntRange(10, 300).Draw(t, "max entry bytes"),
		}
		c := NewCache(p)
		now := start
		born := map[*Answer]Instant{} // when each answer was stored
		of := map[*Answer]string{}    // for which request
		purged := Instant(0)          // answers asked for before it are no good after it
		asked := map[*Answer]Instant{}
		waiting := map[*CacheCall]bool{}
		var order []*CacheCall // those that wait or waited
		var reporting []*CacheCall
		request := map[*CacheCall]string{}
		control := rapid.SampledFrom([]string{"", "", "", "no-cache", "max-age=2", "only-if-cached", "no-store", "stale-if-error=3"})

		check := func(w *CacheCall, window time.Duration) {
			if w.Answer == nil {
				if w.Found == Hit || w.Found == Stale || w.Found == Refresh {
					t.Fatalf("%v without an answer", w.Found)
				}
				return
			}
			if of[w.Answer] != request[w] {
				t.Fatalf("asked %q, got the answer to %q", request[w], of[w.Answer])
			}
			if age := now - born[w.Answer]; age != w.Age {
				t.Fatalf("age %v, want %v", w.Age, age)
			} else if w.Found == Hit && age >= p.TTL || age >= p.TTL+window && age > 0 {
				t.Fatalf("%v at the age of %v under %+v", w.Found, age, p)
			}
			if w.request.MaxAge.Given && w.Age > w.request.MaxAge.Value {
				t.Fatalf("%v old, for one that takes %v", w.Age, w.request.MaxAge.Value)
			}
		}
		woken := func(all ...*CacheCall) {
			for _, w := range all {
				if !waiting[w] {
					t.Fatal("returned a call that doesn't wait")
				}
				delete(waiting, w)
				check(w, p.StaleIfError)
				if w.Found == Miss {
					reporting = append(reporting, w)
				} else if w.Answer == nil {
					t.Fatalf("woken with nothing: %v", w.Found)
				}
			}
		}
		take := func() *CacheCall {
			i := rapid.IntRange(0, len(reporting)-1).Draw(t, "which")
			w := reporting[i]
			reporting = append(reporting[:i], reporting[i+1:]...)
			return w
		}
		invariants := func() {
			leaders := map[CacheKey]int{}
			for _, w := range reporting {
				if w.role != leads && w.role != alone {
					t.Fatalf("a call with nothing to report: role %d", w.role)
				}
				if c.shard(w.key).leading(w) {
					leaders[w.key]++
				}
			}
			var kept, flights int64
			queued := 0
			for i := range c.shards {
				s := &c.shards[i]
				for k, f := range s.flights {
					flights++
					if leaders[k] != 1 {
						t.Fatalf("%d leaders of a key", leaders[k])
					}
					for w := f.first; w != nil; w = w.next {
						queued++
						if !waiting[w] || w.key != k {
							t.Fatal("a call waits that was returned, or under another's key")
						}
					}
				}
				for _, e := range s.kept.Values() {
					kept += e.size
				}
			}
			if int(flights) != len(leaders) || queued != len(waiting) {
				t.Fatalf("%d flights for %d leaders, %d queued of %d that wait", flights, len(leaders), queued, len(waiting))
			}
			if n := c.Snapshot().Bytes; n != kept || n > p.MaxBytes {
				t.Fatalf("%d bytes counted, %d kept, %d allowed", n, kept, p.MaxBytes)
			}
		}
		store := func(w *CacheCall, size int, response string) {
			a := &Answer{Body: make([]byte, size)}
			of[a], born[a], asked[a] = request[w], now, w.began
			woken(c.Store(w, now, a, ParseCacheControl(response))...)
		}

		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			step := rapid.IntRange(0, 9).Draw(t, "step")
			switch {
			case step == 0: // time passes
				now += time.Duration(rapid.IntRange(1, 4000).Draw(t, "wait")) * time.Millisecond
			case step == 1 && len(waiting) > 0: // one that waits leaves
				var w *CacheCall
				for i := rapid.IntRange(0, len(waiting)-1).Draw(t, "which"); w == nil; order = order[1:] {
					if !waiting[order[0]] {
						continue
					}
					if i--; i < 0 {
						w = order[0]
					} else {
						order = append(order, order[0])
					}
				}
				delete(waiting, w)
				if next := c.Leave(w, now); next != nil {
					t.Fatal("one that waits handed on")
				}
			case step == 2 && rapid.IntRange(0, 4).Draw(t, "purge") == 0:
				c.Purge()
				purged = now + 1
				now++
			case step <= 5: // a call arrives
				w := &CacheCall{}
				request[w] = fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "request"))
				found := c.Lookup(w, cacheKey(request[w]), now, ParseCacheControl(control.Draw(t, "cache-control")))
				check(w, p.StaleWhileRevalidate)
				if w.Answer != nil && asked[w.Answer] < purged {
					t.Fatal("an answer that was asked for before the purge")
				}
				switch found {
				case Miss:
					reporting = append(reporting, w)
				case Follow:
					waiting[w], order = true, append(order, w)
				case Refresh:
					refresh := w.Refresh()
					request[&refresh] = request[w]
					reporting = append(reporting, &refresh)
				}
			case len(reporting) == 0:
			case step == 6:
				w := take()
				woken(c.Fail(w, now)...)
				check(w, p.StaleIfError)
			case step == 7:
				if next := c.Leave(take(), now); next != nil {
					woken(next)
				}
			default:
				response := rapid.SampledFrom([]string{"", "", "", "no-store", "max-age=1", "max-age=0", "must-revalidate"})
				store(take(), rapid.IntRange(0, 400).Draw(t, "size"), response.Draw(t, "response"))
			}
			invariants()
		}
		// Once all who fetch have reported, nobody waits.
		for len(reporting) > 0 {
			woken(c.Fail(take(), now)...)
		}
		invariants()
		if len(waiting) > 0 {
			t.Fatalf("%d wait for nobody", len(waiting))
		}
	})
}

func TestSizeOfAnAnswer(t *testing.T) {
	a := &Answer{
		Header:  []Field{{"content-type", "application/grpc"}}, // 12 + 16
		Body:    []byte("hello"),                               // 5
		Trailer: []Field{{"grpc-status", "0"}},                 // 11 + 1
	}
	if n := a.Size(); n != 45 {
		t.Fatalf("%d bytes", n)
	}
}
