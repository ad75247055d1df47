package store

import (
	"strconv"
	"strings"
	"time"
)

// dialect is what differs in SQL.
type dialect interface {
	// columns are those of a list; with payload those of a whole job.
	columns(payload bool) string
	// state is the column as text; time is a time as a column compares with it.
	state() string
	time(t time.Time) any
	// tagged are the jobs joined with their tags, of the columns tag and job_id.
	tagged() string
	// unindexed is a condition on a column that is not to choose an index.
	unindexed(condition string) string
	// clustered ends a CREATE TABLE whose primary key is where its rows are.
	clustered() string
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
	// among is a condition: a column is one of the ids that stand at a placeholder as
	// a JSON array. The column's index finds them.
	among(column, placeholder string) string
	// triples are rows of the columns a, b and c, numbers, that stand at a placeholder
	// as a JSON array of arrays.
	triples(placeholder string) string
	// snoozes is how often a job was put off.
	snoozes() string
	// gather makes one JSON array of the rows of a subselect, each an array of the
	// columns that are named.
	gather(columns, subselect string) string
	// records makes one JSON array of the rows of a subselect, each an object of the
	// columns that are named.
	records(columns []string, subselect string) string
	// end is the UPDATE that applies the list of endings that stands at a placeholder.
	end(placeholder string) string
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
func (sqliteDialect) tagged() string {
	return `outrigger_tag CROSS JOIN river_job ON id = job_id` // in this order
}
func (sqliteDialect) unindexed(c string) string { return "+" + c }
func (sqliteDialect) clustered() string         { return " WITHOUT ROWID" }
func (sqliteDialect) parent() string            { return `json_extract(metadata, '$.f.parent')` }
func (sqliteDialect) deadline() string          { return `json_extract(metadata, '$.f.deadline')` }
func (sqliteDialect) tenant() string            { return `coalesce(json_extract(metadata, '$.f.tenant'), '')` }
func (sqliteDialect) now() string               { return `datetime('now', 'subsec')` }
func (sqliteDialect) nowMS() string             { return `cast(unixepoch('subsec') * 1000 AS integer)` }
func (sqliteDialect) lock() string              { return "" } // there is one writer
func (sqliteDialect) skip() string              { return "" }
func (sqliteDialect) among(column, p string) string {
	return column + ` IN (SELECT value FROM json_each(` + p + `))`
}
func (sqliteDialect) triples(p string) string {
	return `(SELECT value->>0 AS a, value->>1 AS b, value->>2 AS c FROM json_each(` + p + `))`
}
func (sqliteDialect) snoozes() string { return `coalesce(json_extract(metadata, '$.snoozes'), 0)` }
func (sqliteDialect) gather(columns, sub string) string {
	return `SELECT json_group_array(json_array(` + columns + `)) FROM (` + sub + `)`
}
func (sqliteDialect) records(columns []string, sub string) string {
	pairs := make([]string, len(columns))
	for i, c := range columns {
		pairs[i] = "'" + c + "', " + c
	}
	return `SELECT json_group_array(json_object(` + strings.Join(pairs, ", ") + `)) FROM (` + sub + `)`
}
func (sqliteDialect) end(p string) string {
	return `UPDATE river_job SET
			attempt = coalesce(ending.attempt, river_job.attempt),
			errors = CASE WHEN failure IS NULL THEN errors ELSE jsonb_insert(coalesce(errors, jsonb('[]')), '$[#]', jsonb(failure)) END,
			finalized_at = ending.finalized_at,
			metadata = jsonb_patch(river_job.metadata, ending.metadata),
			scheduled_at = coalesce(ending.scheduled_at, river_job.scheduled_at),
			state = ending.state
		FROM (SELECT value->>'$.id' AS id, value->>'$.attempt' AS attempt, value->'$.failure' AS failure, value->>'$.finalized_at' AS finalized_at,
				value->'$.metadata' AS metadata, value->>'$.scheduled_at' AS scheduled_at, value->>'$.state' AS state
			FROM json_each(` + p + `)) AS ending
		WHERE river_job.id = ending.id AND river_job.state = 'running'`
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

func (postgresDialect) state() string             { return "state::text" }
func (postgresDialect) time(t time.Time) any      { return t }
func (postgresDialect) tagged() string            { return `outrigger_tag JOIN river_job ON id = job_id` }
func (postgresDialect) unindexed(c string) string { return c } // it has statistics
func (postgresDialect) clustered() string         { return "" }
func (postgresDialect) parent() string            { return `((metadata->'f'->>'parent')::bigint)` }
func (postgresDialect) deadline() string          { return `(metadata->'f'->>'deadline')` }
func (postgresDialect) tenant() string            { return `coalesce(metadata->'f'->>'tenant', '')` }
func (postgresDialect) now() string               { return `now()` }
func (postgresDialect) nowMS() string             { return `(extract(epoch FROM now()) * 1000)::bigint` }
func (postgresDialect) lock() string              { return " FOR UPDATE" }
func (postgresDialect) skip() string              { return " FOR UPDATE SKIP LOCKED" }
func (postgresDialect) among(column, p string) string {
	// An array: a table joined with a list of rows is read as a whole while it is small.
	return column + ` = ANY (ARRAY(SELECT value::bigint FROM json_array_elements_text(` + p + `::json)))`
}
func (postgresDialect) triples(p string) string {
	return `(SELECT (value->>0)::bigint AS a, (value->>1)::bigint AS b, (value->>2)::bigint AS c FROM json_array_elements(` + p + `::json))`
}
func (postgresDialect) snoozes() string { return `coalesce((metadata->>'snoozes')::bigint, 0)` }
func (postgresDialect) gather(columns, sub string) string {
	return `SELECT coalesce(json_agg(json_build_array(` + columns + `)), '[]')::text FROM (` + sub + `) AS found`
}
func (postgresDialect) records(_ []string, sub string) string {
	return `SELECT coalesce(json_agg(found), '[]')::text FROM (` + sub + `) AS found`
}
func (postgresDialect) end(p string) string {
	return `UPDATE river_job SET
			attempt = coalesce(ending.attempt, river_job.attempt),
			errors = CASE WHEN failure IS NULL THEN errors ELSE array_append(errors, failure) END,
			finalized_at = ending.finalized_at,
			metadata = river_job.metadata || ending.metadata,
			scheduled_at = coalesce(ending.scheduled_at, river_job.scheduled_at),
			state = ending.state::river_job_state
		FROM jsonb_to_recordset(` + p + `::jsonb) AS ending(id bigint, attempt smallint, failure jsonb, finalized_at timestamptz, metadata jsonb, scheduled_at timestamptz, state text)
		WHERE river_job.id = ending.id AND river_job.state = 'running'
			AND river_job.id = ANY (ARRAY(SELECT (value->>'id')::bigint FROM jsonb_array_elements(` + p + `::jsonb)))` // as in among
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
