package main

import (
	"context"
	"database/sql"
	"errors"

	_ "modernc.org/sqlite" // the driver
)

// user is a user of the shop.
type user struct {
	ID    int64  `json:"id,omitempty"`
	Name  string `json:"name"`
	Email string `json:"email"`
}

// users is the shop's table, in a database that the apps of both languages open. It is
// not the agent's.
type users struct {
	db   *sql.DB
	path string
}

func openUsers(path string) (*users, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	if _, err := db.Exec("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL UNIQUE)"); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &users{db, path}, nil
}

func (u *users) close() { _ = u.db.Close() } // the file is thrown away

// save does the same however often it is done: a task is done at least once, and now
// and then twice.
func (u *users) save(ctx context.Context, x user) (user, error) {
	err := u.db.QueryRowContext(ctx, "INSERT INTO users (name, email) VALUES (?, ?) ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING id", x.Name, x.Email).Scan(&x.ID)
	return x, err
}

// remove undoes save.
func (u *users) remove(ctx context.Context, x user) (any, error) {
	_, err := u.db.ExecContext(ctx, "DELETE FROM users WHERE id = ?", x.ID)
	return nil, err
}

// all returns how often each address is in the table.
func (u *users) all(ctx context.Context) (map[string]int, error) {
	rows, err := u.db.QueryContext(ctx, "SELECT email FROM users")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	by := make(map[string]int)
	for rows.Next() {
		var email string
		if err := rows.Scan(&email); err != nil {
			return nil, err
		}
		by[email]++
	}
	return by, rows.Err()
}
