//go:build linux && race

package tasks

// buildFlags build the agent as this test is: what races in it is in its log.
var buildFlags = []string{"-race"}
