package chain

import (
	"strings"
	"testing"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

func TestSearchesAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		within, search int
		allowed        bool
	}{
		"a word in a megabyte":        {1 << 20, 95, true},
		"a page in a megabyte":        {1 << 20, 96, false},
		"a megabyte in a megabyte":    {1 << 20, 1 << 20, false},
		"a large text in a short one": {10, 1 << 20, true},
		"nothing":                     {1 << 20, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			err := boundIndex([]ref.Val{types.String(strings.Repeat("a", c.within)), types.String(strings.Repeat("a", c.search))})
			if (err == nil) != c.allowed {
				t.Fatalf("allowed: %v, error %v", c.allowed, err)
			}
		})
	}
}

func TestReplacementsAreBoundedByWhatTheyReplace(t *testing.T) {
	letters := strings.Repeat("a", 1<<20)
	for name, c := range map[string]struct {
		old, with string
		n         []ref.Val
		allowed   bool
	}{
		"four times as much":          {"a", "aaaa", nil, true},
		"five times as much":          {"a", "aaaaa", nil, false},
		"five times as much, once":    {"a", "aaaaa", []ref.Val{types.Int(1)}, true},
		"five times as much, n below": {"a", "aaaaa", []ref.Val{types.Int(-1)}, false},
		"shorter":                     {"aaaaaa", "aaaaa", nil, true},
		"between all":                 {"", "aa", nil, true},
		"too much between all":        {"", "aaa", nil, false},
		"what isn't there":            {"b", letters + letters + letters + letters, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]ref.Val{types.String(letters), types.String(c.old), types.String(c.with)}, c.n...)
			err := boundReplace(args)
			if (err == nil) != c.allowed {
				t.Fatalf("allowed: %v, error %v", c.allowed, err)
			}
		})
	}
}
