package agent

import "testing"

func TestParseMemoryLimit(t *testing.T) {
	for _, test := range []struct {
		content string
		limit   int64
		ok      bool
	}{
		{"134217728\n", 134217728, true},
		{"max\n", 0, false},
		{"9223372036854771712\n", 0, false}, // version 1 without a limit
		{"0\n", 0, false},
		{"", 0, false},
		{"many", 0, false},
	} {
		if limit, ok := parseMemoryLimit([]byte(test.content)); limit != test.limit || ok != test.ok {
			t.Errorf("%q: got %d, %v; want %d, %v", test.content, limit, ok, test.limit, test.ok)
		}
	}
}
