package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/outrigger-rpc/outrigger/agent/admin"
	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/tasks"
	"github.com/outrigger-rpc/outrigger/agent/tasks/email"
	"github.com/outrigger-rpc/outrigger/agent/tasks/seal"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	"github.com/outrigger-rpc/outrigger/agent/tasks/webhook"
	"github.com/outrigger-rpc/outrigger/agent/telemetry"
)

// taskPlane is the task executor and what it works by.
type taskPlane struct {
	executor *tasks.Executor
	store    *store.Store
	calls    *calls
	egress   *egressTransport
	files    atomic.Pointer[taskFiles]
	replaced sync.WaitGroup // files whose last mails are still sent
	// deferrals are what the relay asks of the executor.
	deferrals *deferrals
}

// taskFiles is what the executor's settings hold open. A reload opens it anew.
type taskFiles struct {
	mail     *email.Sender // nil: none is configured
	webhooks map[string]*webhook.Files
}

// close ends it once the mails under way are sent.
func (f *taskFiles) close() error {
	if f == nil || f.mail == nil {
		return nil
	}
	return f.mail.Close()
}

// newTaskPlane opens what the tasks block asks for. nil where there is none.
func (a *Agent) newTaskPlane(ctx context.Context, c *config.Config) (*taskPlane, error) {
	t := c.Tasks
	if t == nil {
		return nil, nil
	}
	p := &taskPlane{deferrals: a.deferrals}
	err := p.open(ctx, a, t)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.deferrals.executor.Store(p.executor)
	return p, nil
}

func (p *taskPlane) open(ctx context.Context, a *Agent, t *config.Tasks) error {
	settings, files, err := openTaskSettings(a.logger, t)
	if err != nil {
		return err
	}
	p.files.Store(files)
	if p.calls, err = a.newCalls(); err != nil {
		return err
	}
	p.egress = a.newEgressTransport()
	if p.executor, err = tasks.New(tasks.Options{
		Settings: settings, Calls: p.calls, HTTP: p.egress, Tracer: taskTracer{&a.telemetry}, Origin: a.origin, Logger: a.logger,
	}); err != nil {
		return fmt.Errorf("tasks: %w", err)
	}
	o, err := storeOptions(t.Store)
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "agent"
	}
	o.Name, o.Logger, o.Moved = host, a.logger, p.executor.Moved
	if p.store, err = store.Open(ctx, o); err != nil {
		return fmt.Errorf("tasks.store: %w", err)
	}
	if err := p.executor.Start(ctx, p.store); err != nil {
		return fmt.Errorf("tasks: %w", err)
	}
	return nil
}

// apply takes over what openTaskSettings opened. An error leaves the old in force.
func (p *taskPlane) apply(ctx context.Context, settings tasks.Settings, files *taskFiles) error {
	if err := p.executor.Apply(ctx, settings); err != nil {
		return fmt.Errorf("tasks: %w", err)
	}
	old := p.files.Swap(files)
	p.replaced.Go(func() { _ = old.close() })
	return nil
}

// openTaskSettings resolves what the executor is told, and opens the files that it
// names.
func openTaskSettings(logger *slog.Logger, t *config.Tasks) (tasks.Settings, *taskFiles, error) {
	s := tasks.Settings{
		Queues: make(map[string]tasks.Queue), Kinds: make(map[string]tasks.Kind), MaxPayload: t.MaxPayload, Webhooks: make(map[string]tasks.Signer),
		Retention: store.Retention{Completed: t.Store.Completed, Cancelled: t.Store.Cancelled, Failed: t.Store.Failed},
	}
	capacities := make(map[string]int)
	for _, q := range t.Queues {
		capacities[q.Name] = q.Capacity
		if q.Workers > 0 {
			s.Queues[q.Name] = tasks.Queue{Workers: q.Workers, Capacity: q.Capacity, CallerRuns: q.CallerRuns}
		}
	}
	for i := range t.Kinds {
		k := &t.Kinds[i]
		s.Kinds[k.Name] = tasks.Kind{
			App: k.App, Lease: k.Lease, Capacity: capacities[k.Name], MaxAttempts: k.MaxAttempts,
			BackoffBase: k.BackoffBase, BackoffMax: k.BackoffMax, Timeout: k.Timeout, Targets: &k.SLA,
		}
	}
	files := &taskFiles{webhooks: make(map[string]*webhook.Files)}
	for name, paths := range t.Webhooks {
		secrets, err := webhook.Open(paths...)
		if err != nil {
			return s, nil, fmt.Errorf("tasks.webhook_secrets %q: %w", name, err)
		}
		files.webhooks[name], s.Webhooks[name] = secrets, secrets
	}
	if err := openSeal(&s, logger, t.Store.Keys); err != nil {
		return s, nil, err
	}
	var err error
	if files.mail, err = openMail(&s, t.Email); err != nil {
		return s, nil, err
	}
	return s, files, nil
}

func openSeal(s *tasks.Settings, logger *slog.Logger, of []config.TaskKey) error {
	if len(of) == 0 {
		return nil
	}
	files := make([]seal.File, len(of))
	for i, k := range of {
		files[i] = seal.File{ID: k.ID, Path: k.File}
	}
	keys, warnings, err := seal.Load(files)
	if err != nil {
		return fmt.Errorf("tasks.store.encryption: %w", err)
	}
	for _, w := range warnings {
		logger.Warn("tasks.store.encryption: " + w)
	}
	s.Seal = keys
	return nil
}

func openMail(s *tasks.Settings, c *config.TaskEmail) (*email.Sender, error) {
	if c == nil {
		return nil, nil
	}
	if c.Templates != "" {
		templates, err := email.Load(c.Templates)
		if err != nil {
			return nil, fmt.Errorf("tasks.email.templates: %w", err)
		}
		s.Templates = templates
	}
	security := email.STARTTLS
	switch {
	case c.TLS:
		security = email.TLS
	case c.Plain:
		security = email.None
	}
	sender, err := email.NewSender(email.Settings{
		Address: c.Server, Security: security, ServerName: c.ServerName, CAFile: c.CAFile, Username: c.Username, PasswordFile: c.PasswordFile,
		From: c.From, SenderDomains: c.SenderDomains, MessageIDDomain: c.Domain, Hello: c.Hello, Timeout: c.Timeout, MaxConnections: c.MaxConnections,
	})
	if err != nil {
		return nil, fmt.Errorf("tasks.email: %w", err)
	}
	s.Email = sender
	return sender, nil
}

// drainTasks lets running tasks end, for as long as the configuration says or until
// Stop, and gives the rest back.
func (a *Agent) drainTasks() {
	if a.tasks == nil {
		return
	}
	ctx, cancel := context.WithTimeout(a.patience, a.reload.config().Tasks.Drain)
	defer cancel()
	if err := a.tasks.executor.Stop(ctx); err != nil {
		a.logger.Warn("tasks were cut off; they run again", "error", err)
	}
}

// close ends everything; drainTasks comes before where something runs.
func (p *taskPlane) close() error {
	if p == nil {
		return nil
	}
	var errs []error
	p.deferrals.close()
	if p.store != nil {
		errs = append(errs, p.store.Close())
	}
	errs = append(errs, p.files.Load().close())
	p.replaced.Wait()
	if p.calls != nil {
		errs = append(errs, p.calls.conn.Close())
	}
	if p.egress != nil {
		p.egress.close()
	}
	return errors.Join(errs...)
}

// storeOptions resolves where tasks are kept.
func storeOptions(c config.TaskStore) (store.Options, error) {
	o := store.Options{Lease: c.Lease, Retention: store.Retention{Completed: c.Completed, Cancelled: c.Cancelled, Failed: c.Failed}}
	if q := c.SQLite; q != nil {
		o.SQLite = &store.SQLite{Path: q.Path, Normal: q.Normal}
		return o, nil
	}
	address, err := postgresURL(c.Postgres)
	if err != nil {
		return o, err
	}
	o.Postgres = &store.Postgres{URL: address, Schema: c.Postgres.Schema, MaxConnections: c.Postgres.MaxConnections, ConnectTimeout: c.Postgres.ConnectTimeout}
	return o, nil
}

// postgresURL puts the database's URL together. One to another machine is by TLS,
// and checks whose it is, unless it says otherwise.
func postgresURL(c *config.TaskPostgres) (string, error) {
	const at = "tasks.store.postgres"
	text := c.URL
	if c.URLFile != "" {
		data, err := os.ReadFile(c.URLFile)
		if err != nil {
			return "", fmt.Errorf("%s.url_file: %w", at, err)
		}
		text = strings.TrimSpace(string(data))
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return "", fmt.Errorf("%s: what the file holds is no URL of PostgreSQL; want postgres://user:password@host:5432/database", at) // and not what it holds
	}
	if c.PasswordFile != "" {
		password, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("%s.password_file: %w", at, err)
		}
		u.User = url.UserPassword(u.User.Username(), strings.TrimRight(string(password), "\r\n"))
	}
	q := u.Query()
	host := u.Hostname()
	if local := host == "" || host == "localhost" || host == "127.0.0.1" || host == "::1" || strings.HasPrefix(q.Get("host"), "/"); !q.Has("sslmode") && !local {
		q.Set("sslmode", "verify-full")
		u.RawQuery = q.Encode()
	}
	return u.String(), nil
}

// taskPromises returns what SLAs are kept of tasks.
func (a *Agent) taskPromises() []api.Promise {
	p := a.tasks
	if p == nil {
		return nil
	}
	var all []api.Promise
	for _, k := range p.executor.KindStats() {
		if k.SLA != nil && k.Targets != nil {
			all = append(all, api.Promise{Name: telemetry.TaskService(k.Kind), Recorder: k.SLA, Targets: *k.Targets})
		}
	}
	return all
}

// taskParts says how the executor is, for /readyz: calls go on without it.
func (a *Agent) taskParts() []admin.Part {
	p := a.tasks
	if p == nil {
		return nil
	}
	part := admin.Part{Name: "tasks", Detail: "accepting and running"}
	if why := p.store.Problem(); why != "" {
		part.State, part.Detail = admin.Warning, why
	}
	parts := []admin.Part{part}
	for name, files := range p.files.Load().webhooks {
		if err := files.Problem(); err != nil {
			parts = append(parts, admin.Part{Name: "webhook secret " + name, State: admin.Warning, Detail: err.Error()})
		}
	}
	return parts
}
