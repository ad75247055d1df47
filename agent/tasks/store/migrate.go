package store

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivermigrate"
)

// migrateWith brings River's tables and ours up to date, and refuses those of a
// newer program.
func migrateWith[TTx any](ctx context.Context, driver riverdriver.Driver[TTx], steps [][]string) error {
	migrator, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	all := migrator.AllVersions()
	newest := all[len(all)-1].Version
	have, err := engineVersion(ctx, driver.GetExecutor())
	if err != nil {
		return err
	}
	if have > newest {
		return &NewerError{What: "the engine's tables", Have: have, Know: newest}
	}
	if have < newest {
		if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
			return err
		}
	}
	return migrateOwn(ctx, driver.GetExecutor(), steps)
}

// engineVersion returns the version of River's tables; 0: there are none.
func engineVersion(ctx context.Context, e riverdriver.Executor) (int, error) {
	there, err := e.TableExists(ctx, &riverdriver.TableExistsParams{Table: "river_migration"})
	if err != nil || !there {
		return 0, err
	}
	existing, err := e.MigrationGetByLine(ctx, &riverdriver.MigrationGetByLineParams{Line: riverdriver.MigrationLineMain})
	have := 0
	for _, m := range existing {
		have = max(have, m.Version)
	}
	return have, err
}

// NewerError refuses tables of a newer program.
type NewerError struct {
	What       string
	Have, Know int
}

// Error says which versions, and what to do.
func (e *NewerError) Error() string {
	return fmt.Sprintf("%s are of version %d, and this program knows %d at most: a newer one wrote them; run that one, or name another store", e.What, e.Have, e.Know)
}

// migrateOwn applies the steps that are missing. Agents that start together do it
// one after another.
func migrateOwn(ctx context.Context, e riverdriver.Executor, steps [][]string) error {
	tx, err := e.Begin(ctx)
	if err != nil {
		return err
	}
	committed := false
	defer func() {
		if !committed {
			_ = tx.Rollback(context.WithoutCancel(ctx)) // the error that led here is told
		}
	}()
	if err := tx.Exec(ctx, "CREATE TABLE IF NOT EXISTS outrigger_migration (version integer NOT NULL PRIMARY KEY)"); err != nil {
		return err
	}
	var have int
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM outrigger_migration").Scan(&have); err != nil {
		return err
	}
	if have > len(steps) {
		return &NewerError{What: "the task store's tables", Have: have, Know: len(steps)}
	}
	for i := have; i < len(steps); i++ {
		for _, statement := range steps[i] {
			if err := tx.Exec(ctx, statement); err != nil {
				return fmt.Errorf("the task store's tables can't be brought to version %d (%s): %w", i+1, firstLine(statement), err)
			}
		}
		if err := tx.Exec(ctx, "INSERT INTO outrigger_migration (version) VALUES ($1)", i+1); err != nil {
			return err
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	committed = true
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// own are our tables and indexes, beside River's. A step is never changed once it
// was released.
func own(d dialect, more ...string) [][]string {
	return [][]string{append([]string{
		// Leases of workers outside the agents.
		`CREATE TABLE outrigger_lease (job_id bigint NOT NULL PRIMARY KEY, attempt integer NOT NULL, until bigint NOT NULL)`,
		`CREATE INDEX outrigger_lease_until ON outrigger_lease (until)`,
		// Signs of life of agents, and which of them draws which ids.
		`CREATE TABLE outrigger_agent (id text NOT NULL PRIMARY KEY, node integer NOT NULL UNIQUE, seen bigint NOT NULL)`,
		// What lists filter by, beside the indexes of each database.
		`CREATE INDEX outrigger_job_parent ON river_job (` + d.parent() + `, id) WHERE ` + d.parent() + ` IS NOT NULL`,
		// What is due.
		`CREATE INDEX outrigger_job_due ON river_job (scheduled_at) WHERE state IN ('retryable', 'scheduled')`,
		// Whose turn it is in a queue that tenants share.
		`CREATE INDEX outrigger_job_tenant ON river_job (queue, priority, (` + d.tenant() + `), scheduled_at, id) WHERE state = 'available'`,
		// Tags: an index of what River keeps has no order.
		`CREATE TABLE outrigger_tag (tag text NOT NULL, job_id bigint NOT NULL, PRIMARY KEY (tag, job_id))` + d.clustered(),
		// What must be done by a time.
		`CREATE INDEX outrigger_job_deadline ON river_job (` + d.deadline() + `) WHERE finalized_at IS NULL AND ` + d.deadline() + ` IS NOT NULL`,
		// Which job a key names.
		`CREATE INDEX outrigger_job_unique ON river_job (unique_key) WHERE unique_key IS NOT NULL`,
		// What is kept for a time of its own.
		`CREATE INDEX outrigger_job_retention ON river_job (finalized_at) WHERE finalized_at IS NOT NULL AND ` + d.retention() + ` IS NOT NULL`,
	}, more...)}
}
