package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAGoroutineIsFound(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.go", "package a\n\nfunc f() {\n\tgo f()\n}\n")
	write("a_test.go", "package a\n\nfunc g() { go f() }\n")

	found, err := check(dir)

	if err != nil || len(found) != 1 || found[0].Line != 4 {
		t.Fatalf("found %v, %v; want line 4 of a.go only", found, err)
	}
}

func TestAnEmptyFolderIsAnError(t *testing.T) {
	if _, err := check(t.TempDir()); err == nil {
		t.Fatal("a folder without Go passed")
	}
}
