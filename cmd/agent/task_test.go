package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/agent"
)

// keeper is an agent that keeps tasks, and a receiver for their requests.
// $OUTRIGGER_API leads to it.
func keeper(t *testing.T) (receiver string) {
	t.Helper()
	dir := t.TempDir()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			w.WriteHeader(http.StatusGone)
			return
		}
		fmt.Fprint(w, "hello")
	}))
	t.Cleanup(web.Close)
	file := filepath.Join(dir, "outrigger.yaml")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(`
egress: {address: "127.0.0.1:0"}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
unmatched: {mode: DIAL}
tasks:
  store: {sqlite: {path: %q}}
  kinds: [{name: resize}]
`, filepath.Join(dir, "tasks.db"))), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := agent.New(agent.Options{ConfigPath: file, DrainTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-a.Ready():
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	}
	t.Setenv(apiVariable, a.Addresses().API)
	return web.URL
}

func TestATaskIsSubmittedAndWaitedFor(t *testing.T) {
	receiver := keeper(t)

	got := outrigger("task", "submit", "http", "--url", receiver+"/", "--method", "GET", "--tag", "web", "--wait")

	for _, want := range []string{"kind       http", "state      COMPLETED", "attempts   1 of 10", "tags       web", "result     status 200, text/plain; charset=utf-8: hello"} {
		if got.code != exitOK || !strings.Contains(got.stdout, want) {
			t.Errorf("%d %s\n%s\nwant %s", got.code, got.stderr, got.stdout, want)
		}
	}
}

func TestATaskThatFailsFailsItsVerb(t *testing.T) {
	receiver := keeper(t)

	got := outrigger("task", "submit", "http", "--url", receiver+"/gone", "--wait")

	if got.code != exitFailed || !strings.Contains(got.stdout, "state      FAILED") || !strings.Contains(got.stdout, "410 Gone") {
		t.Errorf("%+v", got)
	}
}

func TestTasksForScripts(t *testing.T) {
	keeper(t)

	// Given a task that waits for an app's worker,
	submitted := fields(t, outrigger("task", "submit", "resize", "--data", `{"id": 7}`, "--priority", "1", "--key", "image-7", "-o", "json"))
	id, _ := submitted["task"].(map[string]any)["id"].(string)
	if !regexp.MustCompile(`^[0-9a-z]{13}$`).MatchString(id) {
		t.Fatalf("%v", submitted)
	}
	// then the same submit finds it again,
	again := fields(t, outrigger("task", "submit", "resize", "--data", `{"id": 7}`, "--priority", "1", "--key", "image-7", "-o", "json"))
	wantFields(t, again, map[string]any{"existed": true})
	// it is shown and listed with the contract's fields,
	wantFields(t, fields(t, outrigger("task", "get", id, "-o", "json"))["task"].(map[string]any), map[string]any{
		"id": id, "kind": "resize", "state": "AVAILABLE", "attempts": float64(0), "error": "", "spec": nil, "priority": float64(1),
	})
	list := fields(t, outrigger("task", "list", "--state", "AVAILABLE", "--kind", "resize", "-o", "json"))
	wantFields(t, element(t, list, "tasks", 0), map[string]any{"id": id})
	wantFields(t, list, map[string]any{"next_page_token": ""})
	// what it contains only where that is asked for,
	if shown := outrigger("task", "get", id, "--show-payload"); !strings.Contains(shown.stdout, `"data":"eyJpZCI6IDd9"`) {
		t.Errorf("%+v", shown)
	}
	// and it is cancelled, run anew, and deleted.
	wantFields(t, fields(t, outrigger("task", "cancel", id, "-o", "json"))["task"].(map[string]any), map[string]any{"state": "CANCELLED"})
	wantFields(t, fields(t, outrigger("task", "retry", id, "-o", "json"))["task"].(map[string]any), map[string]any{"state": "AVAILABLE"})
	outrigger("task", "cancel", id)
	wantText(t, outrigger("task", "purge", "--state", "CANCELLED").stdout, "1 task deleted\n")
	wantText(t, outrigger("task", "list").stdout, "no tasks\n")
}

func TestAQueueIsPausedAndResumed(t *testing.T) {
	keeper(t)

	paused := outrigger("task", "pause", "resize")
	all := outrigger("task", "queues")
	resumed := outrigger("task", "resume", "resize")

	if !strings.Contains(paused.stdout, "resize  PAUSED") || !strings.Contains(all.stdout, "default  RUNS") || !strings.Contains(resumed.stdout, "resize  RUNS") {
		t.Errorf("%s\n%s\n%s", paused.stdout, all.stdout, resumed.stdout)
	}
}

func TestATaskComesFromAFile(t *testing.T) {
	receiver := keeper(t)
	file := filepath.Join(t.TempDir(), "task.yaml")
	if err := os.WriteFile(file, []byte(`
task:
  http: {method: GET, url: "`+receiver+`/"}
  schedule: {cron: "0 8 * * 1-5", time_zone: Europe/Berlin}
idempotency_key: morning
`), 0o600); err != nil {
		t.Fatal(err)
	}

	got := outrigger("task", "submit", "--file", file)

	wantFields(t, fields(t, outrigger("task", "get", strings.TrimSpace(got.stdout), "-o", "json"))["task"].(map[string]any), map[string]any{"kind": "schedule", "state": "SCHEDULED"})
	wrong := outrigger("task", "submit", "--file", file+".none")
	if wrong.code != exitUsage || !strings.Contains(wrong.stderr, "no such file") {
		t.Errorf("%+v", wrong)
	}
}

func TestAFilesTaskIsFilledByFlags(t *testing.T) {
	receiver := keeper(t)
	for kind, text := range map[string]string{
		"chain":  `task: {chain: {steps: [{name: first, task: {app: {kind: resize}}, map: {app.payload: input.image}}]}}`,
		"resize": `task: {app: {kind: resize}}`,
		"http":   `task: {http: {method: POST, url: "` + receiver + `/"}}`,
	} {
		file := filepath.Join(t.TempDir(), "task.yaml")
		if err := os.WriteFile(file, []byte("idempotency_key: old\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}

		submitted := outrigger("task", "submit", "--file", file, "--data", `{"image": 7}`, "--key", "new-"+kind)

		got := outrigger("task", "get", strings.TrimSpace(submitted.stdout), "--show-payload", "-o", "json")
		if !strings.Contains(got.stdout, "eyJpbWFnZSI6IDd9") || !strings.Contains(got.stdout, `"`+kind+`"`) { // {"image": 7}
			t.Errorf("%s: %+v\n%+v", kind, submitted, got)
		}
		again := outrigger("task", "submit", "--file", file, "--data", `{"image": 8}`, "--key", "new-"+kind)
		if again.code != exitFailed || !strings.Contains(again.stderr, "under this key with other content") {
			t.Errorf("%s: the same key for other content: %+v", kind, again)
		}
	}
	mail := filepath.Join(t.TempDir(), "mail.yaml")
	if err := os.WriteFile(mail, []byte(`task: {email: {to: [ada@example.com], subject: x, text: y}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := outrigger("task", "submit", "--file", mail, "--data", "x"); got.code != exitUsage || !strings.Contains(got.stderr, "--data: the file's task is an e-mail") {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsWrongWithASubmitIsSaid(t *testing.T) {
	keeper(t)
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "what is to be done?"},
		{[]string{"chain"}, exitUsage, "want --file FILE"},
		{[]string{"nosuch"}, exitFailed, `task.app.kind: "nosuch" is no kind of tasks.kinds`},
		{[]string{"http", "--url", "ftp://x"}, exitFailed, `task.http.url: its scheme is "ftp"; want http or https`},
		{[]string{"http", "--url", "http://x", "--header", "nocolon"}, exitUsage, `--header "nocolon": want NAME:VALUE`},
		{[]string{"http", "--url", "http://x", "--run-at", "tomorrow"}, exitUsage, `--run-at "tomorrow": want a time such as`},
		{[]string{"http", "--url", "http://x", "--queue", "nosuch"}, exitFailed, `task.queue: there is no queue "nosuch"; known: default`},
		{[]string{"resize", "--cron", "61 * * * *"}, exitFailed, "task.schedule.cron"},
		{[]string{"email", "--to", "nobody", "--subject", "x", "--text", "y"}, exitFailed, "e-mails can't be sent: the configuration has no tasks.email block"},
		{[]string{"resize", "--per", "1h"}, exitUsage, "--per wants --unique"},
		{[]string{"http", "--url", "http://x", "--to", "ada@example.com"}, exitUsage, "--to: http tasks have none; it is for email"},
		{[]string{"resize", "--method", "GET"}, exitUsage, "--method: resize tasks have none; it is for grpc and http"},
		{[]string{"email", "--to", "ada@example.com", "--data", "x"}, exitUsage, "--data: email tasks have none; it is for an app's kinds and grpc and http"},
		{[]string{"--file", "x.yaml", "--delay", "1h"}, exitUsage, "--delay: with --file it stands in the file"},
		{[]string{"--file", "x.yaml", "--url", "http://x"}, exitUsage, "--url: with --file it stands in the file"},
	} {
		got := outrigger(append([]string{"task", "submit"}, test.args...)...)
		if got.code != test.code || !strings.Contains(got.stderr, test.want) {
			t.Errorf("%v: %d %q, want %d %q", test.args, got.code, got.stderr, test.code, test.want)
		}
	}
	if got := outrigger("task", "list", "--state", "LOST"); got.code != exitUsage || !strings.Contains(got.stderr, `--state "LOST"`) {
		t.Errorf("%+v", got)
	}
	if got := outrigger("task", "get", "nope"); got.code != exitFailed {
		t.Errorf("%+v", got)
	}
}
