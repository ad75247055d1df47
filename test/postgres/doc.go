//go:build !linux

// Package postgres runs a PostgreSQL of a test's own, on Linux alone.
package postgres
