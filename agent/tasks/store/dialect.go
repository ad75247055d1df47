package store

import (
	"strconv"
	"time"
)

// dialect is what differs in SQL.
type dialect interface {
	// columns are those of a list; with payload those of a whole job.
	columns(payload bool) string
	// state is the column as text; time is a time as a column compares with it.
	state() string
	time(t time.Time) any
	// tagged is a condition: the job has the tag that stands at a placeholder.
	tagged(placeholder string) string
	// deadline is an expression for that fact as it is written in JSON, or null.
	deadline() string
	// parent and tenant are expressions for those facts; tenant is never null.
	parent() string
	tenant() string
	// now is the database's clock as it compares with scheduled_at; nowMS is the
	// same in milliseconds since 1970.
	now() string
	nowMS() string
	// lock ends a SELECT whose rows nobody else may change until the transaction
	// ends; skip passes over those that somebody does.
	lock() string
	skip() string
	// idList is a set of ids that stands at a placeholder as a JSON array.
	idList(placeholder string) string
	// snoozes is how often a job was put off.
	snoozes() string
	// gather makes one JSON array of the rows of a subselect, each an array of the
	// columns that are named.
	gather(columns, subselect string) string
	// begin is what an UPDATE sets to give attempts to a worker, whose name stands at
	// a placeholder.
	begin(placeholder string) string
	// worker is who began the last attempt, sinceBegun how long ago that was, in
	// seconds.
	worker() string
	sinceBegun() string
	// cancelRequested is a condition: somebody asked that the job stop.
	cancelRequested() string
	// forgetCancel is metadata without the mark that the job is to be cancelled.
	forgetCancel() string
	// retention is a job's own, in seconds, or null; age is how long ago it ended.
	retention() string
	age() string
}

// sqliteDialect is SQLite's.
type sqliteDialect struct{}

func (sqliteDialect) columns(payload bool) string {
	c := `id, kind, queue, priority, state, attempt, max_attempts, scheduled_at, created_at, attempted_at, finalized_at,
		json(coalesce(attempted_by, jsonb('[]'))), json(coalesce(json_extract(metadata, '$.f'), '{}')), json(tags), coalesce(json_extract(metadata, '$.snoozes'), 0),
		json_type(metadata, '$.cancel_attempted_at') IS NOT NULL, coalesce(json_extract(metadata, '$.n'), ''), `
	if payload {
		return c + `json(coalesce(errors, jsonb('[]'))), coalesce(json_extract(args, '$.b'), ''), json_extract(metadata, '$.o'), coalesce(json_extract(metadata, '$.p'), '')`
	}
	return c + `CASE WHEN json_array_length(errors) > 0 THEN '[' || json_extract(errors, '$[#-1]') || ']' ELSE '[]' END, '', NULL, ''`
}

func (sqliteDialect) state() string { return "state" }
func (sqliteDialect) time(t time.Time) any {
	return t.UTC().Round(time.Millisecond).Format("2006-01-02 15:04:05.000")
}
func (sqliteDialect) tagged(p string) string {
	return `id IN (SELECT job_id FROM outrigger_tag WHERE tag = ` + p + `)`
}
func (sqliteDialect) parent() string   { return `json_extract(metadata, '$.f.parent')` }
func (sqliteDialect) deadline() string { return `json_extract(metadata, '$.f.deadline')` }
func (sqliteDialect) tenant() string   { return `coalesce(json_extract(metadata, '$.f.tenant'), '')` }
func (sqliteDialect) now() string      { return `datetime('now', 'subsec')` }
func (sqliteDialect) nowMS() string    { return `cast(unixepoch('subsec') * 1000 AS integer)` }
func (sqliteDialect) lock() string     { return "" } // there is one writer
func (sqliteDialect) skip() string     { return "" }
func (sqliteDialect) idList(p string) string {
	return `(SELECT value FROM json_each(` + p + `))`
}
func (sqliteDialect) snoozes() string { return `coalesce(json_extract(metadata, '$.snoozes'), 0)` }
func (sqliteDialect) gather(columns, sub string) string {
	return `SELECT json_group_array(json_array(` + columns + `)) FROM (` + sub + `)`
}
func (sqliteDialect) begin(p string) string {
	return `attempt = attempt + 1, state = 'running', attempted_at = datetime('now', 'subsec'), attempted_by = jsonb(json_array(` + p + `))`
}
func (sqliteDialect) worker() string { return `json_extract(attempted_by, '$[#-1]')` }
func (sqliteDialect) sinceBegun() string {
	return `(unixepoch('subsec') - unixepoch(attempted_at, 'subsec'))`
}
func (sqliteDialect) cancelRequested() string {
	return `json_type(metadata, '$.cancel_attempted_at') IS NOT NULL`
}
func (sqliteDialect) forgetCancel() string { return `jsonb_remove(metadata, '$.cancel_attempted_at')` }
func (sqliteDialect) retention() string    { return `json_extract(metadata, '$.f.retention_s')` }
func (sqliteDialect) age() string          { return `(unixepoch('subsec') - unixepoch(finalized_at))` }

// postgresDialect is PostgreSQL's.
type postgresDialect struct{}

func (postgresDialect) columns(payload bool) string {
	c := `id, kind, queue, priority, state::text, attempt, max_attempts, scheduled_at, created_at, attempted_at, finalized_at,
		coalesce(array_to_json(attempted_by)::text, '[]'), coalesce((metadata->'f')::text, '{}'), array_to_json(tags)::text, coalesce((metadata->>'snoozes')::bigint, 0),
		metadata ? 'cancel_attempted_at', coalesce(metadata->>'n', ''), `
	if payload {
		return c + `coalesce(array_to_json(errors)::text, '[]'), coalesce(args->>'b', ''), metadata->>'o', coalesce(metadata->>'p', '')`
	}
	return c + `coalesce('[' || errors[array_upper(errors, 1)]::text || ']', '[]'), '', NULL, ''`
}

func (postgresDialect) state() string        { return "state::text" }
func (postgresDialect) time(t time.Time) any { return t }
func (postgresDialect) tagged(p string) string {
	return `tags @> ARRAY[` + p + `::varchar(255)]`
}
func (postgresDialect) parent() string   { return `((metadata->'f'->>'parent')::bigint)` }
func (postgresDialect) deadline() string { return `(metadata->'f'->>'deadline')` }
func (postgresDialect) tenant() string   { return `coalesce(metadata->'f'->>'tenant', '')` }
func (postgresDialect) now() string      { return `now()` }
func (postgresDialect) nowMS() string    { return `(extract(epoch FROM now()) * 1000)::bigint` }
func (postgresDialect) lock() string     { return " FOR UPDATE" }
func (postgresDialect) skip() string     { return " FOR UPDATE SKIP LOCKED" }
func (postgresDialect) idList(p string) string {
	return `(SELECT value::bigint FROM json_array_elements_text(` + p + `::json))`
}
func (postgresDialect) snoozes() string { return `coalesce((metadata->>'snoozes')::bigint, 0)` }
func (postgresDialect) gather(columns, sub string) string {
	return `SELECT coalesce(json_agg(json_build_array(` + columns + `)), '[]')::text FROM (` + sub + `) AS found`
}
func (postgresDialect) begin(p string) string {
	return `attempt = attempt + 1, state = 'running', attempted_at = now(), attempted_by = ARRAY[` + p + `::text]`
}
func (postgresDialect) worker() string { return `attempted_by[array_upper(attempted_by, 1)]` }
func (postgresDialect) sinceBegun() string {
	return `extract(epoch FROM now() - attempted_at)`
}
func (postgresDialect) cancelRequested() string { return `metadata ? 'cancel_attempted_at'` }
func (postgresDialect) forgetCancel() string    { return `metadata - 'cancel_attempted_at'` }
func (postgresDialect) retention() string       { return `((metadata->'f'->>'retention_s')::bigint)` }
func (postgresDialect) age() string             { return `extract(epoch FROM now() - finalized_at)` }

// place is the placeholder of the n-th argument, from 1.
func place(n int) string { return "$" + strconv.Itoa(n) }
