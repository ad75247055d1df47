//go:build linux && !race

package tasks

var buildFlags []string
