package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite" // its driver "sqlite", too
	sqlite3 "modernc.org/sqlite/lib"
)

// Settings of the embedded database.
const (
	busyTimeoutMS = 1500     // of another process that holds the file
	writeCacheKB  = 8 * 1024 // of the connection that writes
	readCacheKB   = 2 * 1024 // of each that reads
	readers       = 3
)

// sqliteBackend is an embedded database file.
type sqliteBackend struct {
	options SQLite
	store   *Store
	lock    *os.File
	write   *sql.DB
	read    *sql.DB
	driver  *riversqlite.Driver
}

func (b *sqliteBackend) open(ctx context.Context) (riverdriver.Executor, *sql.DB, error) {
	if err := b.close(); err != nil { // what a try before left
		return nil, nil, err
	}
	if err := b.claim(); err != nil {
		return nil, nil, err
	}
	synchronous := "FULL"
	if b.options.Normal {
		synchronous = "NORMAL"
	}
	var err error
	if b.write, err = sql.Open("sqlite", b.dsn(writeCacheKB, "journal_mode(WAL)", "synchronous("+synchronous+")", "wal_autocheckpoint(2000)", "journal_size_limit(67108864)")); err != nil {
		return nil, nil, err
	}
	b.write.SetMaxOpenConns(1) // SQLite has one writer; River's writes and ours take turns
	if err := b.write.PingContext(ctx); err != nil {
		return nil, nil, b.cannot(err)
	}
	// A read-only file opens well: only a write shows it.
	if _, err := b.write.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS outrigger_probe (n integer)"); err != nil {
		return nil, nil, b.cannot(err)
	}
	if b.read, err = sql.Open("sqlite", b.dsn(readCacheKB, "query_only(true)")); err != nil {
		return nil, nil, err
	}
	b.read.SetMaxOpenConns(readers)
	b.driver = riversqlite.New(b.write)
	return b.driver.GetExecutor(), b.read, nil
}

// cannot says why the file can't be used: an *Unavailable where that may pass.
func (b *sqliteBackend) cannot(err error) error {
	text := fmt.Sprintf("the task store %s can't be opened: %v", b.options.Path, err)
	why := sqliteWhy(err)
	if why != "" {
		text = fmt.Sprintf("the task store %s: %s", b.options.Path, why)
	}
	var e *sqlite.Error
	passes := errors.As(err, &e) && why != "" && e.Code()&0xFF != sqlite3.SQLITE_CORRUPT && e.Code()&0xFF != sqlite3.SQLITE_NOTADB
	for _, known := range []error{unix.EACCES, unix.EPERM, unix.EROFS, unix.ENOSPC, unix.EDQUOT, unix.EIO} {
		passes = passes || errors.Is(err, known)
	}
	if passes {
		return &Unavailable{Why: text, cause: err}
	}
	return errors.New(text)
}

// claim makes the file, for its owner alone, and keeps other agents from it.
func (b *sqliteBackend) claim() error {
	lock, err := os.OpenFile(b.options.Path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return b.cannot(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("the task store %s is in use by another agent: a SQLite file is one agent's alone; want another path, or PostgreSQL to share", b.options.Path)
		}
		return fmt.Errorf("the task store %s can't be locked: %w", b.options.Path, err)
	}
	b.lock = lock
	file, err := os.OpenFile(b.options.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return b.cannot(err)
	}
	return file.Close()
}

func (b *sqliteBackend) dsn(cacheKB int, pragmas ...string) string {
	q := url.Values{"_txlock": {"immediate"}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", busyTimeoutMS))
	q.Add("_pragma", fmt.Sprintf("cache_size(-%d)", cacheKB))
	for _, p := range pragmas {
		q.Add("_pragma", p)
	}
	path := b.options.Path
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	return (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String()
}

func (b *sqliteBackend) migrate(ctx context.Context) error {
	return migrateWith(ctx, riverdriver.Driver[*sql.Tx](b.driver), own(sqliteDialect{},
		// What lists filter by: an index is in the order of ids by itself, and River's
		// own has the kinds.
		`CREATE INDEX outrigger_job_state ON river_job (state)`,
		`CREATE INDEX outrigger_job_queue ON river_job (queue)`,
		`CREATE TRIGGER outrigger_tagged AFTER INSERT ON river_job WHEN json_array_length(NEW.tags) > 0 BEGIN
			INSERT OR IGNORE INTO outrigger_tag (tag, job_id) SELECT value, NEW.id FROM json_each(NEW.tags);
		END`,
		`CREATE TRIGGER outrigger_untagged AFTER DELETE ON river_job WHEN json_array_length(OLD.tags) > 0 BEGIN
			DELETE FROM outrigger_tag WHERE job_id = OLD.id AND tag IN (SELECT value FROM json_each(OLD.tags));
		END`,
		`CREATE TRIGGER outrigger_unleased AFTER DELETE ON river_job BEGIN DELETE FROM outrigger_lease WHERE job_id = OLD.id; END`,
	))
}

func (b *sqliteBackend) writers() int { return 1 }

func (b *sqliteBackend) listen(context.Context) {} // there is nobody to hear

// fetch implements backend. A fetch that a power loss undoes costs nothing but doing
// the job again: what ran it is gone too. It need not wait for the disk.
func (b *sqliteBackend) fetch(ctx context.Context, do func(riverdriver.Executor) error) error {
	if b.options.Normal {
		return do(b.driver.GetExecutor())
	}
	conn, err := b.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back to the pool
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous = NORMAL"); err != nil {
		return err
	}
	defer func() {
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), "PRAGMA synchronous = FULL"); err != nil {
			_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // nobody may write by it
		}
	}()
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(b.driver.UnwrapExecutor(tx)); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func (b *sqliteBackend) client(s *Store, config *river.Config) (engine, error) {
	config.ReindexerSchedule = river.NeverSchedule() // it would hold the only connection that writes
	return river.NewClient(riverdriver.Driver[*sql.Tx](&wrapped[*sql.Tx]{Driver: b.driver, store: s}), config)
}

func (b *sqliteBackend) close() error {
	var errs []error
	if b.read != nil {
		errs = append(errs, b.read.Close())
	}
	if b.write != nil {
		errs = append(errs, b.write.Close())
	}
	if b.lock != nil {
		errs = append(errs, b.lock.Close())
	}
	b.read, b.write, b.lock = nil, nil, nil
	return errors.Join(errs...)
}
