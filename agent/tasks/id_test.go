package tasks

import (
	"math"
	"testing"
)

func TestIDsAreTexts(t *testing.T) {
	for _, tc := range []struct {
		id   int64
		text string
	}{
		{1, "0000000000001"},
		{31, "000000000000z"},
		{32, "0000000000010"},
		{1 << 60, "1000000000000"},
		{math.MaxInt64, "7zzzzzzzzzzzz"},
	} {
		if got := FormatID(tc.id); got != tc.text {
			t.Errorf("FormatID(%d) = %q, want %q", tc.id, got, tc.text)
		}
		if got, err := ParseID(tc.text); err != nil || got != tc.id {
			t.Errorf("ParseID(%q) = %d, %v; want %d", tc.text, got, err, tc.id)
		}
	}
}

func TestTextsThatAreNoIDsAreRefused(t *testing.T) {
	for _, text := range []string{"", "1", "000000000000", "00000000000001", "0000000000000", "8000000000000", "zzzzzzzzzzzzz", "000000000000Z", "000000000000i", "000000000000l", "000000000000o", "000000000000u", "00000000000-1", "000000000000\n"} {
		if id, err := ParseID(text); err == nil {
			t.Errorf("ParseID(%q) = %d, want an error", text, id)
		}
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("0000000000001")
	f.Add("7zzzzzzzzzzzz")
	f.Add("i000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ParseID(text)
		if err != nil {
			return
		}
		if id <= 0 || FormatID(id) != text {
			t.Errorf("ParseID(%q) = %d, whose text is %q", text, id, FormatID(id))
		}
	})
}
