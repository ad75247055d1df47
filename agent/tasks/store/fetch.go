package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// tenants knows which queues have tenants, and whose turn it is.
type tenants struct {
	mu    sync.Mutex
	seen  map[string]bool   // queue: a tenant's job was there
	last  map[string]string // queue: who was served last
	asked map[string]time.Time
}

// askTenants is how often the database is asked whether other agents' tenants came.
const askTenants = time.Second

// maxTurn bounds the tenants that one fetch takes from; the others come next.
const maxTurn = 64

func (t *tenants) saw(queue string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = make(map[string]bool)
	}
	t.seen[queue] = true
}

// several reports whether a queue may have tenants; unknown asks the database.
func (t *tenants) several(queue string, now time.Time) (several, ask bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[queue] {
		return true, false
	}
	if t.asked == nil {
		t.asked, t.last = make(map[string]time.Time), make(map[string]string)
	}
	if now.Sub(t.asked[queue]) < askTenants {
		return false, false
	}
	t.asked[queue] = now
	return false, true
}

func (t *tenants) servedLast(queue string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[queue]
}

func (t *tenants) served(queue, tenant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last = make(map[string]string)
	}
	t.last[queue] = tenant
}

// fetch locks jobs of a queue for River's client, as many as there are slots: by
// River's own query, or, where tenants share the queue, taking them in turn.
func (s *Store) fetch(ctx context.Context, p *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	if s.stopping.Load() || !s.health.usable() {
		return &riverdriver.JobGetAvailableResult{}, nil
	}
	slots := s.slots.take(p.Queue, p.MaxToLock)
	if slots == 0 {
		return &riverdriver.JobGetAvailableResult{}, nil
	}
	limited := *p
	limited.MaxToLock, limited.MaxAttemptedBy = slots, maxAttemptedBy
	s.fetchBegins()
	var result *riverdriver.JobGetAvailableResult
	err := s.backend.fetch(ctx, func(e riverdriver.Executor) (err error) {
		result, err = s.lock(ctx, e, &limited)
		return err
	})
	if err != nil {
		s.fetchEnds(nil)
		s.slots.used(p.Queue, slots, 0)
		return nil, s.health.note(explained(err))
	}
	s.took(p.Queue, result, slots)
	return result, nil
}

func (s *Store) lock(ctx context.Context, e riverdriver.Executor, p *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	several, ask := s.tenants.several(p.Queue, time.Now())
	if ask {
		found, err := s.hasTenants(ctx, e, p.Queue)
		if err != nil {
			return nil, err
		}
		if found {
			s.tenants.saw(p.Queue)
			several = true
		}
	}
	var waiting []int
	if several {
		var err error
		if waiting, several, err = s.waitingTenants(ctx, e, p.Queue); err != nil {
			return nil, err
		}
	}
	if !several {
		return e.JobGetAvailable(ctx, p)
	}
	tx, err := e.Begin(ctx)
	if err != nil {
		return nil, err
	}
	jobs, err := s.lockInTurn(ctx, tx, p, waiting)
	if err == nil {
		if err = tx.Commit(ctx); err == nil {
			return &riverdriver.JobGetAvailableResult{Jobs: jobs}, nil
		}
	}
	rollback, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = tx.Rollback(rollback) // the error that led here is told
	return nil, err
}

// took notes jobs that now run. Those that can't be read River ends.
func (s *Store) took(queue string, result *riverdriver.JobGetAvailableResult, slots int) {
	jobs := make([]Job, 0, len(result.Jobs))
	gone := make(map[string]int)
	for _, row := range result.Jobs {
		gone[row.Queue]--
		if result.DecodeErrors[row.ID] == nil {
			j, _ := jobOf(row) // what can't be read, Work says
			jobs = append(jobs, j)
		}
	}
	s.fetchEnds(jobs)
	if s.slots.used(queue, slots, len(jobs)) {
		s.hub.publish(topicInsert, payload(insertPayload{queue}))
	}
	if len(result.Jobs) == 0 {
		return
	}
	s.stats.fetches.Add(1)
	s.stats.fetched.Add(uint64(len(jobs)))
	s.waiting.add(gone)
	for i := range jobs {
		s.options.Moved(movedOf(jobs[i]))
	}
}

// hasTenants asks whether a job of any tenant waits in a queue.
func (s *Store) hasTenants(ctx context.Context, e riverdriver.Executor, queue string) (bool, error) {
	var n int
	// With the priorities named, the index of tenants leads to the first one.
	one := "EXISTS (SELECT 1 FROM river_job WHERE state = 'available' AND queue = $1 AND priority = "
	tenant := " AND " + s.dialect.tenant() + " > '')"
	err := e.QueryRow(ctx, "SELECT CASE WHEN "+one+"1"+tenant+" OR "+one+"2"+tenant+" OR "+one+"3"+tenant+" OR "+one+"4"+tenant+" THEN 1 ELSE 0 END", queue).Scan(&n)
	return n > 0, err
}

// waitingTenants returns the priorities of which jobs wait in a queue, and whether
// they are of several tenants: the first and the last of each, by an index.
func (s *Store) waitingTenants(ctx context.Context, e riverdriver.Executor, queue string) (priorities []int, several bool, err error) {
	tenant := s.dialect.tenant()
	var ends [lowestPriority][2]sql.NullString
	var columns []string
	var into []any
	for i := range ends {
		where := fmt.Sprintf(" FROM river_job WHERE state = 'available' AND queue = $1 AND priority = %d)", i+1)
		columns = append(columns, "(SELECT min("+tenant+")"+where, "(SELECT max("+tenant+")"+where)
		into = append(into, &ends[i][0], &ends[i][1])
	}
	if err := e.QueryRow(ctx, "SELECT "+strings.Join(columns, ", "), queue).Scan(into...); err != nil {
		return nil, false, err
	}
	only := sql.NullString{}
	for i, end := range ends {
		if !end[0].Valid {
			continue
		}
		priorities = append(priorities, i+1)
		several = several || end[0] != end[1] || only.Valid && only != end[0]
		only = end[0]
	}
	return priorities, several, nil
}

// lowestPriority is River's.
const lowestPriority = 4

// lockInTurn locks jobs of the queue, the first priority first, and within one
// priority a job of each tenant in turn. It looks at the tenants and not at what
// waits: a tenant's million costs another one nothing.
func (s *Store) lockInTurn(ctx context.Context, tx riverdriver.ExecutorTx, p *riverdriver.JobGetAvailableParams, priorities []int) ([]*rivertype.JobRow, error) {
	var ids []int64
	last := s.tenants.servedLast(p.Queue)
	for _, priority := range priorities {
		if len(ids) >= p.MaxToLock {
			break
		}
		names, err := s.turn(ctx, tx, p.Queue, priority, last)
		if err != nil {
			return nil, err
		}
		found, by, err := s.heads(ctx, tx, p, priority, names, p.MaxToLock-len(ids))
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			last = by
		}
		ids = append(ids, found...)
	}
	if len(ids) == 0 {
		return nil, nil
	}
	if err := tx.Exec(ctx, "UPDATE river_job SET "+s.dialect.begin("$1")+" WHERE state = 'available' AND "+s.dialect.among("id", "$2"), p.ClientID, jsonIDs(ids)); err != nil {
		return nil, err
	}
	rows, err := tx.JobGetByIDMany(ctx, &riverdriver.JobGetByIDManyParams{ID: ids})
	if err != nil {
		return nil, err
	}
	s.tenants.served(p.Queue, last)
	byID := make(map[int64]*rivertype.JobRow, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	ordered := make([]*rivertype.JobRow, 0, len(rows))
	for _, id := range ids {
		if r := byID[id]; r != nil && r.State == rivertype.JobStateRunning {
			ordered = append(ordered, r)
		}
	}
	return ordered, nil
}

// turn lists the tenants that have jobs of a priority waiting in a queue, beginning
// after the one that was served last, by skipping from one to the next in an index.
func (s *Store) turn(ctx context.Context, tx riverdriver.Executor, queue string, priority int, last string) ([]string, error) {
	after, err := s.skipScan(ctx, tx, queue, priority, "> $3", last, maxTurn)
	if err != nil || len(after) == maxTurn {
		return after, err
	}
	before, err := s.skipScan(ctx, tx, queue, priority, "<= $3", last, maxTurn-len(after))
	return append(after, before...), err
}

func (s *Store) skipScan(ctx context.Context, tx riverdriver.Executor, queue string, priority int, bound, last string, limit int) ([]string, error) {
	tenant := s.dialect.tenant()
	where := "FROM river_job WHERE state = 'available' AND queue = $1 AND priority = $2 AND " + tenant
	var text string
	err := tx.QueryRow(ctx, s.dialect.gather("tenant", `WITH RECURSIVE turn(tenant, n) AS (
		SELECT (SELECT min(`+tenant+`) `+where+` `+bound+`), 1
		UNION ALL
		SELECT (SELECT min(`+tenant+`) `+where+` > turn.tenant AND `+tenant+` `+bound+`), n + 1 FROM turn WHERE turn.tenant IS NOT NULL AND n < $4
	) SELECT tenant FROM turn WHERE tenant IS NOT NULL`), queue, priority, last, limit).Scan(&text)
	if err != nil {
		return nil, err
	}
	var rows [][1]string
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, err
	}
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = r[0]
	}
	return names, nil
}

// heads takes the first jobs of each tenant, one of each in turn until there are n.
// It returns who was served last.
func (s *Store) heads(ctx context.Context, tx riverdriver.Executor, p *riverdriver.JobGetAvailableParams, priority int, names []string, n int) (ids []int64, last string, err error) {
	if len(names) == 0 {
		return nil, "", nil
	}
	each := (n + len(names) - 1) / len(names)
	lists := make([][]int64, len(names))
	for {
		total := 0
		for i, name := range names {
			if len(lists[i]) < each {
				if lists[i], err = s.headsOf(ctx, tx, p, priority, name, each); err != nil {
					return nil, "", err
				}
			}
			total += len(lists[i])
		}
		more := 0 // tenants that may have more than they were asked for
		for i := range names {
			if len(lists[i]) == each {
				more++
			}
		}
		if total >= n || more == 0 {
			break
		}
		each += (n - total + more - 1) / more
	}
	for round := 0; len(ids) < n; round++ {
		took := false
		for i, list := range lists {
			if round < len(list) && len(ids) < n {
				ids, last, took = append(ids, list[round]), names[i], true
			}
		}
		if !took {
			break
		}
	}
	return ids, last, nil
}

func (s *Store) headsOf(ctx context.Context, tx riverdriver.Executor, p *riverdriver.JobGetAvailableParams, priority int, tenant string, n int) ([]int64, error) {
	args := []any{p.Queue, priority, tenant, n}
	kinds := ""
	if p.Kind != nil {
		places := make([]string, len(p.Kind))
		for i, kind := range p.Kind {
			args = append(args, kind)
			places[i] = place(len(args))
		}
		kinds = " AND kind IN (" + strings.Join(places, ", ") + ")"
	}
	return s.idsOf(ctx, tx, `SELECT id FROM river_job WHERE state = 'available' AND queue = $1 AND priority = $2 AND `+s.dialect.tenant()+` = $3 AND scheduled_at <= `+s.dialect.now()+kinds+`
		ORDER BY scheduled_at, id LIMIT $4`+s.dialect.skip(), args...)
}

// idsOf returns the ids that a query finds.
func (s *Store) idsOf(ctx context.Context, e riverdriver.Executor, query string, args ...any) ([]int64, error) {
	var text string
	if err := e.QueryRow(ctx, s.dialect.gather("id", query), args...).Scan(&text); err != nil {
		return nil, err
	}
	var rows [][1]int64
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, err
	}
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r[0]
	}
	return ids, nil
}

// jsonIDs is a list of ids for dialect.among.
func jsonIDs(ids []int64) string {
	text, err := json.Marshal(ids)
	if err != nil {
		panic(err) // numbers can always be written
	}
	return string(text)
}
