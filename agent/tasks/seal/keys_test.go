package seal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// secret is a key for tests.
func secret(b byte) (s [keySize]byte) {
	for i := range s {
		s[i] = b + byte(i)
	}
	return s
}

func newKeys(t testing.TB, keys ...Key) *Keys {
	t.Helper()
	k, err := New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSeal(t testing.TB, k *Keys, taskID, content string) []byte {
	t.Helper()
	sealed, err := k.Seal(nil, taskID, []byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealedContentOpensForItsTask(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		taskID := rapid.String().Draw(t, "task")
		content := rapid.SliceOf(rapid.Byte()).Draw(t, "content")
		before := rapid.SliceOf(rapid.Byte()).Draw(t, "before")
		keys, err := New(Key{ID: "k", Secret: secret(1)})
		if err != nil {
			t.Fatal(err)
		}

		sealed, err := keys.Seal(bytes.Clone(before), taskID, content)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(sealed, before) {
			t.Fatalf("what was in front became %x, want %x", sealed, before)
		}
		opened, err := keys.Open(bytes.Clone(before), taskID, sealed[len(before):])
		if err != nil {
			t.Fatal(err)
		}
		if want := append(before, content...); !bytes.Equal(opened, want) {
			t.Fatalf("opened %x, want %x", opened, want)
		}
	})
}

// stored is "hello" of task-1, sealed by secret(1) as "2026-07" when this form
// was made. What stores hold must open with every later version.
var stored, _ = hex.DecodeString("0107323032362d3037c62a54d42a8fd879dcb20e5734fe4f424a3c1ecabb" +
	"5fd8c04e5c54099c59e9f23e1ee1bdab078a53cdfd8a836a72cff3bd")

func TestFormIsStable(t *testing.T) {
	keys := newKeys(t, Key{ID: "2026-07", Secret: secret(1)})

	content, err := keys.Open(nil, "task-1", stored)

	if err != nil || string(content) != "hello" {
		t.Errorf("opened %q, %v; want hello", content, err)
	}
}

func TestSealedContentIsCompact(t *testing.T) {
	keys := newKeys(t, Key{ID: "2026-07", Secret: secret(1)})

	sealed := mustSeal(t, keys, "task-1", "hello")

	if got, want := len(sealed), 46+len("2026-07")+len("hello"); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	if id, _, err := split(sealed); id != "2026-07" || err != nil {
		t.Errorf("key %q, %v", id, err)
	}
}

func TestSameContentIsSealedOtherwiseEachTime(t *testing.T) {
	keys := newKeys(t, Key{ID: "k", Secret: secret(1)})

	if a, b := mustSeal(t, keys, "task-1", "hello"), mustSeal(t, keys, "task-1", "hello"); bytes.Equal(a, b) {
		t.Errorf("both %x", a)
	}
}

func TestFirstKeySealsAndAllOpen(t *testing.T) {
	old, young := Key{ID: "old", Secret: secret(1)}, Key{ID: "new", Secret: secret(99)}
	before := mustSeal(t, newKeys(t, old), "task-1", "before")
	rotated := newKeys(t, young, old)
	after := mustSeal(t, rotated, "task-1", "after")

	if content, err := rotated.Open(nil, "task-1", before); err != nil || string(content) != "before" {
		t.Errorf("what the old key sealed: %q, %v", content, err)
	}
	if content, err := newKeys(t, young).Open(nil, "task-1", after); err != nil || string(content) != "after" {
		t.Errorf("what was sealed after the rotation, by the new key alone: %q, %v", content, err)
	}
}

func TestUnknownKey(t *testing.T) {
	sealed := mustSeal(t, newKeys(t, Key{ID: "gone", Secret: secret(1)}), "task-1", "hello")

	_, err := newKeys(t, Key{ID: "k", Secret: secret(1)}).Open(nil, "task-1", sealed)

	var unknown *UnknownKeyError
	if !errors.As(err, &unknown) || unknown.ID != "gone" {
		t.Fatalf("%T %v, want *UnknownKeyError of gone", err, err)
	}
	if want := `sealed with key "gone", which is not configured`; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want it to say %s", err, want)
	}
}

func TestWrongKey(t *testing.T) {
	sealed := mustSeal(t, newKeys(t, Key{ID: "k", Secret: secret(1)}), "task-1", "hello")

	_, err := newKeys(t, Key{ID: "k", Secret: secret(2)}).Open(nil, "task-1", sealed)

	var wrong *WrongKeyError
	if !errors.As(err, &wrong) || wrong.ID != "k" {
		t.Fatalf("%T %v, want *WrongKeyError of k", err, err)
	}
}

func TestContentOfAnotherTaskDoesNotOpen(t *testing.T) {
	keys := newKeys(t, Key{ID: "k", Secret: secret(1)})
	sealed := mustSeal(t, keys, "task-1", "hello")

	if _, err := keys.Open(nil, "task-2", sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v, want ErrCorrupt", err)
	}
}

func TestEveryChangedBitIsNoticed(t *testing.T) {
	keys := newKeys(t, Key{ID: "k", Secret: secret(1)}, Key{ID: "j", Secret: secret(1)})
	sealed := mustSeal(t, keys, "task-1", "a secret")
	for i := range len(sealed) * 8 {
		changed := bytes.Clone(sealed)
		changed[i/8] ^= 1 << (i % 8)

		content, err := keys.Open(nil, "task-1", changed)

		if err == nil || content != nil {
			t.Fatalf("bit %d: opened %q, %v", i, content, err)
		}
		if strings.Contains(err.Error(), "a secret") {
			t.Fatalf("bit %d: the error shows the content: %v", i, err)
		}
	}
}

func TestEveryShorterPartIsNoticed(t *testing.T) {
	keys := newKeys(t, Key{ID: "k", Secret: secret(1)})
	sealed := mustSeal(t, keys, "task-1", "hello")
	for n := range sealed {
		if _, err := keys.Open(nil, "task-1", sealed[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("the first %d bytes: %v, want ErrCorrupt", n, err)
		}
	}
}

func TestContentAboveTheLimitIsRefused(t *testing.T) {
	keys := newKeys(t, Key{ID: "k", Secret: secret(1)})

	_, err := keys.Seal(nil, "task-1", make([]byte, MaxContent+1))

	if err == nil || !strings.Contains(err.Error(), "at most 67108864") {
		t.Errorf("%v, want a refusal that says the limit", err)
	}
}

func TestKeysAreChecked(t *testing.T) {
	for _, v := range []struct {
		name string
		keys []Key
		want string
	}{
		{"none", nil, "there is no key"},
		{"no id", []Key{{Secret: secret(1)}}, "must have 1 to 32 characters"},
		{"long id", []Key{{ID: strings.Repeat("k", 33)}}, "must have 1 to 32 characters"},
		{"strange id", []Key{{ID: "a b"}}, `"a b" must consist of letters`},
		{"two of one id", []Key{{ID: "k", Secret: secret(1)}, {ID: "k", Secret: secret(2)}}, `two keys have the id "k"`},
	} {
		t.Run(v.name, func(t *testing.T) {
			if _, err := New(v.keys...); err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("%v, want it to say %s", err, v.want)
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	keys := newKeys(f, Key{ID: "2026-07", Secret: secret(1)}, Key{ID: "k", Secret: secret(2)})
	f.Add("task-1", stored)
	f.Add("task-2", stored)
	f.Add("task-1", stored[:len(stored)-1])
	f.Add("task-1", []byte{version, 255})
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, taskID string, input []byte) {
		before := bytes.Clone(input)
		content, err := keys.Open(nil, taskID, input)
		if !bytes.Equal(before, input) {
			t.Fatal("the input was changed")
		}
		var unknown *UnknownKeyError
		var wrong *WrongKeyError
		switch {
		case err == nil:
			// Nobody forges a content, so this is the seed.
			if taskID != "task-1" || string(content) != "hello" || !bytes.Equal(input, stored) {
				t.Fatalf("opened %q for %q", content, taskID)
			}
		case errors.Is(err, ErrCorrupt), errors.As(err, &unknown), errors.As(err, &wrong):
			if content != nil {
				t.Fatalf("content %q beside %v", content, err)
			}
		default:
			t.Fatalf("%T %v is none of the documented errors", err, err)
		}
	})
}

// budget: 3 µs and 5 allocations for 1 KiB; most of it is the derived key.
func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			keys := newKeys(b, Key{ID: "2026-07", Secret: secret(1)})
			content := make([]byte, size)
			var sealed []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				sealed, _ = keys.Seal(sealed[:0], "0199c9a2-5f0e-7d1c-9b5e-6a3f1c2d4e5f", content)
			}
		})
	}
}

// budget: as BenchmarkSeal.
func BenchmarkOpen(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			keys := newKeys(b, Key{ID: "2026-07", Secret: secret(1)})
			sealed := mustSeal(b, keys, "task-1", strings.Repeat("x", size))
			var content []byte
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if content, err = keys.Open(content[:0], "task-1", sealed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
