package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/sla"
)

func TestWithoutATasksBlockThereIsNoExecutor(t *testing.T) {
	if c := parse(t, oneService); c.Tasks != nil {
		t.Fatalf("got %+v", c.Tasks)
	}
}

func TestATasksBlockThatSaysNothing(t *testing.T) {
	got := parse(t, "tasks: {}").Tasks

	if want := (TaskStore{SQLite: &TaskSQLite{Path: "outrigger-tasks.db"}, Lease: 30 * time.Second, Completed: 24 * time.Hour, Cancelled: 24 * time.Hour, Failed: 168 * time.Hour}); !reflect.DeepEqual(got.Store, want) {
		t.Errorf("store %+v", got.Store)
	}
	if want := []TaskQueue{{Name: "default", Workers: 16, Capacity: 10000}}; !reflect.DeepEqual(got.Queues, want) {
		t.Errorf("queues %+v", got.Queues)
	}
	if got.MaxPayload != 1<<20 || got.Drain != time.Minute || got.Email != nil || len(got.Webhooks) != 0 {
		t.Errorf("got %+v", got)
	}
	var names []string
	for _, k := range got.Kinds {
		names = append(names, k.Name)
		want := TaskKind{Name: k.Name, MaxAttempts: 10, BackoffBase: time.Second, BackoffMax: 10 * time.Minute, Timeout: 30 * time.Second}
		want.SLA = sla.DefaultTargets()
		want.SLA.Latency = nil // nobody waits for a task as for a call
		if !reflect.DeepEqual(k, want) {
			t.Errorf("kind %+v", k)
		}
	}
	if want := "chain email grpc http"; strings.Join(names, " ") != want {
		t.Errorf("kinds %v, want %s", names, want)
	}
}

func TestAKindThatAppsWorkHasAQueueOfItsName(t *testing.T) {
	got := parse(t, `
tasks:
  workers: 4
  queue_capacity: 50
  when_full: CALLER_RUNS
  queues: [{name: news, workers: 1, when_full: REJECT}, {name: bulk, capacity: 1000000}]
  kinds:
    - {name: save-user, lease: 10s, timeout: 1m, capacity: 7, sla: {latency: [{quantile: 0.95, target: 5s}]}}
    - {name: email, max_attempts: 3, backoff: {base: 20m}}
`).Tasks

	want := []TaskQueue{
		{Name: "bulk", Workers: 4, Capacity: 1000000, CallerRuns: true},
		{Name: "default", Workers: 4, Capacity: 50, CallerRuns: true},
		{Name: "news", Workers: 1, Capacity: 50},
		{Name: "save-user", Capacity: 7},
	}
	if !reflect.DeepEqual(got.Queues, want) {
		t.Errorf("queues %+v", got.Queues)
	}
	kinds := make(map[string]TaskKind)
	for _, k := range got.Kinds {
		kinds[k.Name] = k
	}
	if k := kinds["save-user"]; !k.App || k.Lease != 10*time.Second || k.Timeout != time.Minute || k.SLA.Latency[0].Target != 5*time.Second {
		t.Errorf("save-user %+v", k)
	}
	if k := kinds["email"]; k.App || k.MaxAttempts != 3 || k.BackoffBase != 20*time.Minute || k.BackoffMax != 20*time.Minute {
		t.Errorf("email %+v", k)
	}
}

func TestFilesOfTasksLieBesideTheConfiguration(t *testing.T) {
	c, err := Parse(filepath.Join("etc", "outrigger.yaml"), []byte(`
tasks:
  store: {postgres: {url: "postgres://app@db/tasks", password_file: pg.txt}, encryption: {keys: [{id: a, file: /keys/a}]}}
  email: {server: "127.0.0.1:1025", from: "Shop <shop@example.com>", templates: mails}
  webhook_secrets: [{name: shop, files: [new.txt, old.txt]}]
`))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Tasks

	if p := got.Store.Postgres; got.Store.SQLite != nil || p.PasswordFile != filepath.Join("etc", "pg.txt") || p.Schema != "outrigger" || p.MaxConnections != 10 {
		t.Errorf("postgres %+v", p)
	}
	if got.Store.Keys[0] != (TaskKey{"a", "/keys/a"}) {
		t.Errorf("keys %+v", got.Store.Keys)
	}
	if e := got.Email; !e.Plain || e.Domain != "example.com" || e.Templates != filepath.Join("etc", "mails") || e.ServerName != "127.0.0.1" {
		t.Errorf("email %+v", e)
	}
	if files := got.Webhooks["shop"]; !reflect.DeepEqual(files, []string{filepath.Join("etc", "new.txt"), filepath.Join("etc", "old.txt")}) {
		t.Errorf("secrets %v", files)
	}
}

func TestMailToAnotherMachineIsEncrypted(t *testing.T) {
	for _, test := range []struct {
		server, security string
		tls, plain       bool
	}{
		{"smtp.example.com:587", "", false, false},
		{"smtp.example.com:465", "security: TLS,", true, false},
		{"localhost:1025", "", false, true},
		{"127.0.0.1:1025", "security: STARTTLS,", false, false},
		{"relay.internal:25", "security: NONE,", false, true},
	} {
		got := parse(t, `tasks: {email: {`+test.security+` from: "a@example.com", server: "`+test.server+`"}}`).Tasks.Email
		if got.TLS != test.tls || got.Plain != test.plain {
			t.Errorf("%s %s: TLS %t, plain %t", test.server, test.security, got.TLS, got.Plain)
		}
	}
}
