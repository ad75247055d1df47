package agent

import "testing"

func TestReadOnlyMapping(t *testing.T) {
	for _, tc := range []struct {
		line   string
		length int
		ok     bool
	}{
		{"00400000-01c00000 r-xp 00000000 fe:00 12 /bin/outrigger", 0x1800000, true},
		{"01c00000-02c00000 r--p 01800000 fe:00 12 /bin/outrigger", 0x1000000, true},
		{"02c00000-02d00000 rw-p 02800000 fe:00 12 /bin/outrigger", 0, false}, // variables
		{"7f0000000000-7f0000100000 r-xp 00000000 fe:00 9 /lib/other.so", 0, false},
		{"7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]", 0, false},
		{"", 0, false},
	} {
		start, length, ok := readOnlyMapping(tc.line, "/bin/outrigger")
		if ok != tc.ok || length != tc.length || ok && start == 0 {
			t.Errorf("%q: got %#x, %#x, %v", tc.line, start, length, ok)
		}
	}
}
