//go:build !linux

package postgres

import "syscall"

// attributes are none: its processes outlive a test that is killed.
func attributes() *syscall.SysProcAttr { return new(syscall.SysProcAttr) }
