package store

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Unavailable is why the store can't be used right now. Nothing was accepted, but
// where its Unknown says so.
type Unavailable struct {
	// Why, in plain words.
	Why string
	// Unknown: the connection was lost in mid-commit, and what was being written may
	// be there.
	Unknown bool
	cause   error
}

// Error says why.
func (u *Unavailable) Error() string { return u.Why }

// Unwrap returns the database's error.
func (u *Unavailable) Unwrap() error { return u.cause }

func isUnavailable(err error) bool {
	var u *Unavailable
	return errors.As(err, &u)
}

func isNoRows(err error) bool {
	return errors.Is(err, sql.ErrNoRows) || errors.Is(err, pgx.ErrNoRows)
}

// explained turns an error of the database that says it can't be used now into an
// *Unavailable; others are returned as they are.
func explained(err error) error {
	if err == nil || isUnavailable(err) {
		return err
	}
	for _, known := range []error{ErrNotFound, ErrLost, ErrState} {
		if errors.Is(err, known) {
			return err
		}
	}
	if why := sqliteWhy(err); why != "" {
		return &Unavailable{Why: why, cause: err}
	}
	var connect *pgconn.ConnectError
	if errors.Is(err, context.DeadlineExceeded) && !errors.As(err, &connect) { // which is a net.Error, too
		return &Unavailable{Why: "the task store did not answer in time", cause: err}
	}
	if why := postgresWhy(err); why != "" {
		return &Unavailable{Why: why, cause: err}
	}
	return err
}

// isConflict reports whether a transaction met another one, and is to be tried again.
func isConflict(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001")
}

// isTaken reports whether a row was refused since there is one of the same key.
func isTaken(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		return lite.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || lite.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

func sqliteWhy(err error) string {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Code() & 0xFF {
	case sqlite3.SQLITE_FULL:
		return "the disk of the task store is full"
	case sqlite3.SQLITE_READONLY:
		return "the task store's file can't be written: it is read-only"
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return "another process holds the task store's file locked"
	case sqlite3.SQLITE_IOERR:
		return "the disk of the task store fails (" + e.Error() + ")"
	case sqlite3.SQLITE_CANTOPEN:
		return "the task store's file can't be opened"
	case sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return "the task store's file may not be used by this user"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "the task store's file is damaged, or no SQLite database (" + e.Error() + ")"
	}
	return ""
}

func postgresWhy(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		switch {
		case strings.HasPrefix(e.Code, "08"), strings.HasPrefix(e.Code, "57P"):
			return "PostgreSQL ended the connection: " + e.Message
		case strings.HasPrefix(e.Code, "53"):
			return "PostgreSQL has no room left: " + e.Message
		case e.Code == "25006":
			return "PostgreSQL is read-only (a standby?)"
		case strings.HasPrefix(e.Code, "28"), e.Code == "3D000", e.Code == "42501":
			return "PostgreSQL does not let the agent in: " + e.Message
		}
		return ""
	}
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.As(err, &connect):
		return "PostgreSQL can't be reached: " + innermost(err)
	case errors.As(err, &network):
		return "the connection to PostgreSQL was lost: " + innermost(err)
	case strings.Contains(err.Error(), "unexpected EOF"), strings.Contains(err.Error(), "conn closed"), strings.Contains(err.Error(), "closed pool"):
		return "the connection to PostgreSQL was lost"
	}
	return ""
}

// innermost returns the text of the first cause.
func innermost(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// health is whether the store can be used.
type health struct {
	opened atomic.Bool // it was open once
	bad    atomic.Pointer[trouble]

	mu   sync.Mutex
	said map[string]time.Time
	log  func(err error, since time.Time) // of a change; nil error: it is well again
}

// trouble is why not, and since when.
type trouble struct {
	err   error
	since time.Time
}

// set says that the store can't be used, or with nil that it can.
func (h *health) set(err error) {
	old := h.bad.Load()
	switch {
	case err == nil && old == nil:
		return
	case err == nil:
		h.bad.Store(nil)
	case old == nil:
		h.bad.Store(&trouble{err, time.Now()})
	default:
		h.bad.Store(&trouble{err, old.since})
	}
	h.mu.Lock()
	log := h.log
	h.mu.Unlock()
	if log == nil {
		return
	}
	switch {
	case err == nil:
		log(nil, old.since)
	case old == nil || old.err.Error() != err.Error():
		log(err, time.Now())
	}
}

// note hears how an operation went: one that the database could not do makes the
// store unusable until it is seen to work again. It returns the error.
func (h *health) note(err error) error {
	if isUnavailable(err) {
		h.set(err)
	}
	return err
}

// usable reports whether it can be used.
func (h *health) usable() bool { return h.bad.Load() == nil }

// refusal is why it can't be used; nil: it can.
func (h *health) refusal() error {
	t := h.bad.Load()
	if t == nil {
		return nil
	}
	if isUnavailable(t.err) {
		return t.err
	}
	return &Unavailable{Why: t.err.Error(), cause: t.err}
}

// saidLately reports whether a line was said within d; if not, it now is.
func (h *health) saidLately(line string, d time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if at, said := h.said[line]; said && now.Sub(at) < d {
		return true
	}
	if h.said == nil || len(h.said) > 100 {
		h.said = make(map[string]time.Time)
	}
	h.said[line] = now
	return false
}

// Problem says why the store can't be used now; empty: it can.
func (s *Store) Problem() string {
	if t := s.health.bad.Load(); t != nil {
		return t.err.Error()
	}
	return ""
}

// toldEvery is how often the same trouble is logged that comes and goes.
const toldEvery = 30 * time.Second

// told logs when the store stops and begins to be usable.
func (s *Store) told(err error, since time.Time) {
	if err != nil {
		s.stats.errors.Add(1)
		if !s.health.saidLately(err.Error(), toldEvery) {
			s.logger.Error("the task store can't be used: nothing is accepted or run until it can", "why", err.Error())
		}
		return
	}
	if !s.health.saidLately("again", toldEvery) {
		s.logger.Info("the task store can be used again", "after", time.Since(since).Round(time.Millisecond))
	}
}
