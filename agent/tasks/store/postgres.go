package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
)

func (o Postgres) withDefaults() Postgres {
	if o.Schema == "" {
		o.Schema = "outrigger"
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 10
	}
	if o.ConnectTimeout == 0 {
		o.ConnectTimeout = 5 * time.Second
	}
	return o
}

// laxConnections are those that fetch.
const laxConnections = 2

// postgresBackend is a PostgreSQL database.
type postgresBackend struct {
	options Postgres
	store   *Store
	pool    *pgxpool.Pool
	read    *sql.DB
	driver  *riverpgxv5.Driver
	// lax is a pool whose commits don't wait for the server's disk.
	lax     *pgxpool.Pool
	fetcher riverdriver.Executor
}

func (b *postgresBackend) open(ctx context.Context) (riverdriver.Executor, *sql.DB, error) {
	if b.pool == nil {
		config, err := pgxpool.ParseConfig(b.options.URL)
		if err != nil {
			return nil, nil, fmt.Errorf("the task store's URL: %w", err) // pgx hides the password
		}
		config.MaxConns = int32(max(b.options.MaxConnections-laxConnections-1, 2)) // one listens
		config.ConnConfig.ConnectTimeout = b.options.ConnectTimeout
		config.ConnConfig.RuntimeParams["search_path"] = b.options.Schema
		config.ConnConfig.RuntimeParams["application_name"] = "outrigger"
		if b.pool, err = pgxpool.NewWithConfig(context.Background(), config); err != nil {
			return nil, nil, explained(err)
		}
		lax := config.Copy()
		lax.MaxConns = laxConnections
		lax.ConnConfig.RuntimeParams["synchronous_commit"] = "off"
		if b.lax, err = pgxpool.NewWithConfig(context.Background(), lax); err != nil {
			return nil, nil, explained(err)
		}
		b.fetcher = riverpgxv5.New(b.lax).GetExecutor()
		b.read = stdlib.OpenDBFromPool(b.pool)
		b.driver = riverpgxv5.New(b.pool)
	}
	if err := b.pool.Ping(ctx); err != nil {
		return nil, nil, explained(err)
	}
	return b.driver.GetExecutor(), b.read, nil
}

func (b *postgresBackend) migrate(ctx context.Context) error {
	// Agents that start together migrate one after another.
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	const migrating = 0x6f757472 // "outr"
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", migrating); err != nil {
		return err
	}
	defer func() {
		release, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = conn.Exec(release, "SELECT pg_advisory_unlock($1)", migrating) // a lost connection unlocks too
	}()
	if _, err := conn.Exec(ctx, "CREATE SCHEMA IF NOT EXISTS "+pgx.Identifier{b.options.Schema}.Sanitize()); err != nil {
		return err
	}
	return migrateWith(ctx, riverdriver.Driver[pgx.Tx](b.driver), own(postgresDialect{},
		// Indexes of River's that nothing here uses, and that each change of a job pays
		// for.
		`DROP INDEX river_job_args_index`,
		`DROP INDEX river_job_metadata_index`,
		`DROP INDEX river_job_kind`,
		// What lists filter by.
		`CREATE INDEX outrigger_job_state ON river_job (state, id)`,
		`CREATE INDEX outrigger_job_kind ON river_job (kind, id)`,
		`CREATE INDEX outrigger_job_queue ON river_job (queue, id)`,
		`CREATE FUNCTION outrigger_tagged() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
			INSERT INTO outrigger_tag (tag, job_id) SELECT DISTINCT unnest(NEW.tags), NEW.id;
			RETURN NULL;
		END $$`,
		`CREATE TRIGGER outrigger_tagged AFTER INSERT ON river_job FOR EACH ROW WHEN (cardinality(NEW.tags) > 0) EXECUTE FUNCTION outrigger_tagged()`,
		`CREATE FUNCTION outrigger_untagged() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$ BEGIN
			DELETE FROM outrigger_tag WHERE tag = ANY (OLD.tags) AND job_id = OLD.id;
			RETURN NULL;
		END $$`,
		`CREATE TRIGGER outrigger_untagged AFTER DELETE ON river_job FOR EACH ROW WHEN (cardinality(OLD.tags) > 0) EXECUTE FUNCTION outrigger_untagged()`,
	))
}

// writers implements backend: while one transaction waits for the server's disk the
// next one gathers and is prepared.
func (b *postgresBackend) writers() int { return 2 }

// fetch implements backend. A fetch that a crash of the server undoes costs doing the
// job twice, and one of the two ends it: it need not wait for the disk.
func (b *postgresBackend) fetch(_ context.Context, do func(riverdriver.Executor) error) error {
	return do(b.fetcher)
}

func (b *postgresBackend) client(s *Store, config *river.Config) (engine, error) {
	return river.NewClient(riverdriver.Driver[pgx.Tx](&wrapped[pgx.Tx]{Driver: b.driver, store: s}), config)
}

func (b *postgresBackend) close() error {
	if b.pool != nil {
		_ = b.read.Close() // the pool is what is closed
		b.pool.Close()
		b.lax.Close()
	}
	return nil
}
