package relay

import (
	"testing"
	"time"
)

func TestParseGRPCTimeout(t *testing.T) {
	for _, tc := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"1H", time.Hour, true},
		{"2M", 2 * time.Minute, true},
		{"3S", 3 * time.Second, true},
		{"250m", 250 * time.Millisecond, true},
		{"10u", 10 * time.Microsecond, true},
		{"7n", 7, true},
		{"0S", 0, true},
		{"99999999H", maxTimeout, true}, // 11,400 years
		{"", 0, false},
		{"5", 0, false},
		{"S", 0, false},
		{"-1S", 0, false},
		{"1.5S", 0, false},
		{"1s", 0, false},
		{"123456789S", 0, false}, // nine digits
	} {
		got, ok := parseGRPCTimeout(tc.text)
		if got != tc.want || ok != tc.ok {
			t.Errorf("%q: got %v, %v; want %v, %v", tc.text, got, ok, tc.want, tc.ok)
		}
	}
}

func TestAppendGRPCTimeoutRoundsUp(t *testing.T) {
	for _, tc := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0n"},
		{-time.Second, "0n"},
		{1, "1n"},
		{99_999_999, "99999999n"},
		{100_000_001, "100001u"},
		{3 * time.Second, "3000000u"},
		{200 * time.Second, "200000m"},
		{maxTimeout, "76861434M"},
	} {
		if got := string(appendGRPCTimeout(nil, tc.d)); got != tc.want {
			t.Errorf("%v: got %s, want %s", tc.d, got, tc.want)
		}
	}
}

// FuzzGRPCTimeout: whatever is accepted is not negative, and what is written
// for it is accepted again and never shorter.
func FuzzGRPCTimeout(f *testing.F) {
	for _, s := range []string{"1S", "99999999H", "0n", "x", "12345678u"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseGRPCTimeout(s)
		if !ok {
			return
		}
		if d < 0 {
			t.Fatalf("%q is negative: %v", s, d)
		}
		again, ok := parseGRPCTimeout(string(appendGRPCTimeout(nil, d)))
		if !ok || again < d {
			t.Fatalf("%q: %v became %v, %v", s, d, again, ok)
		}
	})
}
