package main

import (
	"context"
	"database/sql"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// book is the database that the connections lead to. What goes on in it is
// written in it: each visit, with its begin and end.
type book struct {
	path string
	db   *sql.DB // for reading it at the end; visits open their own
}

func openBook(path string) (*book, error) {
	db, err := connect(path)
	if err != nil {
		return nil, err
	}
	_, err = db.Exec(`PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS visits (id INTEGER PRIMARY KEY, who TEXT, begun INTEGER, ended INTEGER)`)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &book{path, db}, nil
}

// connect opens one connection.
func connect(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// Close closes the database.
func (b *book) Close() { b.db.Close() }

// visit is work on a connection of its own: it lasts as long as it is open.
func (b *book) visit(ctx context.Context, who string, work time.Duration) error {
	db, err := connect(b.path)
	if err != nil {
		return err
	}
	defer db.Close()
	id, err := begin(ctx, db, who)
	if err != nil {
		return err
	}
	time.Sleep(work)
	return b.leave(ctx, id)
}

// begin writes a visit down.
func begin(ctx context.Context, db *sql.DB, who string) (id int64, err error) {
	r, err := db.ExecContext(ctx, `INSERT INTO visits (who, begun) VALUES (?, ?)`, who, time.Now().UnixNano())
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// leave writes down that a visit ends.
func (b *book) leave(ctx context.Context, id int64) error {
	_, err := b.db.ExecContext(ctx, `UPDATE visits SET ended = ? WHERE id = ?`, time.Now().UnixNano(), id)
	return err
}

// peak returns how many visits there were, and how many at most at once.
func (b *book) peak(ctx context.Context) (visits, most int, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT count(*), max((SELECT count(*) FROM visits b WHERE b.begun <= a.begun AND (b.ended IS NULL OR b.ended > a.begun))) FROM visits a`).Scan(&visits, &most)
	return visits, most, err
}

// of returns how many visits a worker made.
func (b *book) of(ctx context.Context, who string) (n int, err error) {
	err = b.db.QueryRowContext(ctx, `SELECT count(*) FROM visits WHERE who = ? AND ended IS NOT NULL`, who).Scan(&n)
	return n, err
}
