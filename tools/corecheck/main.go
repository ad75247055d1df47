// Command corecheck keeps the sans-IO core free of goroutines: it fails on
// every go statement in the packages named, tests excepted. (Clocks and timers
// are golangci-lint's forbidigo's.)
//
//	go run ./corecheck ../breaker ../sla ../policy ../balancer
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"strings"
)

func main() {
	bad := 0
	for _, dir := range os.Args[1:] {
		found, err := check(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "corecheck:", err)
			os.Exit(1)
		}
		for _, position := range found {
			fmt.Printf("%s: a goroutine in the core: goroutines belong to the shells\n", position)
			bad++
		}
	}
	if bad > 0 {
		os.Exit(1)
	}
}

// check returns the positions of all go statements in the folder's files.
func check(dir string) ([]token.Position, error) {
	files := token.NewFileSet()
	keep := func(f fs.FileInfo) bool { return !strings.HasSuffix(f.Name(), "_test.go") }
	packages, err := parser.ParseDir(files, dir, keep, parser.SkipObjectResolution) //nolint:staticcheck // build tags don't matter here
	if err != nil {
		return nil, err
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("%s holds no Go package", dir)
	}
	var found []token.Position
	for _, p := range packages {
		ast.Inspect(p, func(n ast.Node) bool {
			if s, ok := n.(*ast.GoStmt); ok {
				found = append(found, files.Position(s.Go))
			}
			return true
		})
	}
	return found, nil
}
