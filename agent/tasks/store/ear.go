package store

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/riverdriver"
)

// Pace of listening to PostgreSQL.
const (
	earPing  = 15 * time.Second // a connection that is silent for so long is tried
	earPause = time.Second      // between tries to connect
)

// listen hears what agents tell by NOTIFY, on a connection of its own, until the
// context ends. Whatever was told while there was none, a look at each queue makes
// good.
func (b *postgresBackend) listen(ctx context.Context) {
	for ctx.Err() == nil {
		b.listenOnce(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(earPause):
		}
	}
}

func (b *postgresBackend) listenOnce(ctx context.Context) {
	connecting, cancel := context.WithTimeout(ctx, b.options.ConnectTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(connecting, b.pool.Config().ConnConfig)
	if err != nil {
		return // the store's own writes tell why
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(closing) // it may be broken
	}()
	prefix := b.options.Schema + "."
	for _, topic := range []string{topicInsert, topicControl, topicLeadership} {
		if _, err := conn.Exec(connecting, "LISTEN "+pgx.Identifier{prefix + topic}.Sanitize()); err != nil {
			return
		}
	}
	if b.store.catchUp(connecting) != nil {
		return
	}
	for {
		waiting, cancel := context.WithTimeout(ctx, earPing)
		n, err := conn.WaitForNotification(waiting)
		silent := waiting.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			b.store.heard(strings.TrimPrefix(n.Channel, prefix), n.Payload)
		case silent:
			ping, cancel := context.WithTimeout(ctx, b.options.ConnectTimeout)
			err = conn.Ping(ping)
			cancel()
			if err != nil {
				return
			}
		default:
			return
		}
	}
}

// heard passes on what an agent told, this one among them.
func (s *Store) heard(topic, text string) {
	s.hub.publish(topic, text)
	switch topic {
	case topicInsert:
		var told insertPayload
		if json.Unmarshal([]byte(text), &told) == nil {
			s.tellWorkers(told.Queue)
		}
	case topicControl:
		var told controlPayload
		if json.Unmarshal([]byte(text), &told) == nil && told.Action == "cancel" {
			s.cancelRun(told.JobID)
		}
	}
}

// ring has a queue looked at.
func (s *Store) ring(queue string) {
	s.hub.publish(topicInsert, payload(insertPayload{queue}))
	s.tellWorkers(queue)
}

// tellWorkers says that there may be something in a queue that apps work.
func (s *Store) tellWorkers(queue string) {
	if !s.runs(queue) {
		s.options.Moved(Moved{Queue: queue, State: Available})
	}
}

// catchUp makes good what was told while nobody listened: queues that were paused or
// resumed, jobs that were cancelled, and those that are new.
func (s *Store) catchUp(ctx context.Context) error {
	s.mu.Lock()
	running := slices.Collect(maps.Keys(s.running))
	var queues []string
	if s.work != nil {
		queues = slices.Collect(maps.Keys(s.work.Queues))
	}
	s.mu.Unlock()
	for _, queue := range queues {
		paused, err := s.paused(ctx, s.exec, queue)
		if err != nil {
			return err
		}
		action := "resume"
		if paused {
			action = "pause"
		}
		s.hub.publish(topicControl, payload(controlPayload{Action: action, Queue: queue}))
		s.hub.publish(topicInsert, payload(insertPayload{queue}))
	}
	if len(running) == 0 {
		return nil
	}
	cancelled, err := s.exec.JobGetCancelRequested(ctx, &riverdriver.JobGetCancelRequestedParams{ID: running})
	for _, id := range cancelled {
		s.cancelRun(id)
	}
	return err
}

// runs reports whether jobs of a queue are run here.
func (s *Store) runs(queue string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.work != nil && s.work.Queues[queue] > 0
}
