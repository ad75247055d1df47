package api

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

func TestAnIdSaysWhatItWasMadeOf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSeal(newKey())
		want := permitID{rapid.Uint32().Draw(t, "holder"), rapid.Uint32().Draw(t, "slot"), rapid.Uint64().Draw(t, "serial")}
		id := s.append(nil, want)
		if got, ok := s.open(id); !ok || got != want {
			t.Fatalf("%v, want %v", got, want)
		}
		next := want
		next.serial++
		if other := s.append(nil, next); bytes.Equal(other[:8], id[:8]) || bytes.Equal(other[8:], id[8:]) {
			t.Fatalf("%x and %x have a half in common", id, other)
		}
		if got, _ := newSeal(newKey()).open(id); got == want {
			t.Fatal("another agent's key opens it")
		}
		if _, ok := s.open(id[:15]); ok {
			t.Fatal("15 bytes are an id")
		}
	})
}

func TestIdsAllocateNothing(t *testing.T) {
	s := newSeal(newKey())
	id := make([]byte, 0, idSize)
	if n := testing.AllocsPerRun(1000, func() {
		id = s.append(id[:0], permitID{1, 2, 3})
		s.open(id)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
