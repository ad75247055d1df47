package config

import (
	"cmp"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/sla"
)

// DefaultTaskQueue is the queue of tasks that name none.
const DefaultTaskQueue = "default"

// Reference figures for what a tasks block leaves out.
const (
	defaultTasksFile       = "outrigger-tasks.db"
	defaultTaskSchema      = "outrigger"
	defaultTaskConnections = 10
	defaultTaskConnect     = 5 * time.Second
	defaultQueueCapacity   = 10000
	defaultTaskWorkers     = 16
	defaultTaskPayload     = 1 << 20
	defaultTaskDrain       = time.Minute
	defaultTaskLease       = 30 * time.Second
	defaultTaskAttempts    = 10
	defaultTaskBase        = time.Second
	defaultTaskMax         = 10 * time.Minute
	defaultTaskTimeout     = 30 * time.Second
	defaultAppTimeout      = time.Hour
	defaultWorkerLease     = 30 * time.Second
	defaultEmailTimeout    = 10 * time.Second
	defaultEmailConns      = 4
)

// builtInKinds are the kinds of tasks that the agent itself works.
var builtInKinds = []string{"grpc", "http", "email", "chain"}

// Tasks configure the task executor.
type Tasks struct {
	Store TaskStore
	// Queues by the order of their names: "default", those that are written, and
	// one for each kind that apps work.
	Queues []TaskQueue
	// Kinds in the order of their names: the built-in ones and those of apps.
	Kinds []TaskKind
	// MaxPayload bounds a task's content, in bytes.
	MaxPayload int
	// Drain is how long running tasks may take when the agent stops.
	Drain time.Duration
	// Email is the SMTP server. nil: e-mail tasks are refused.
	Email *TaskEmail
	// Webhooks are files of secrets by the name that tasks sign with.
	Webhooks map[string][]string
}

// TaskStore is where tasks are kept. One of SQLite and Postgres is set.
type TaskStore struct {
	SQLite   *TaskSQLite
	Postgres *TaskPostgres
	// Lease is how long after its last sign of life an agent's tasks run elsewhere.
	Lease time.Duration
	// Completed, Cancelled and Failed are how long tasks are kept after they ended.
	Completed, Cancelled, Failed time.Duration
	// Keys encrypt; the first one seals. Empty: nothing is encrypted.
	Keys []TaskKey
}

// TaskSQLite is an embedded database file.
type TaskSQLite struct {
	Path string
	// Normal: a power loss may take the last tasks that were accepted.
	Normal bool
}

// TaskPostgres is a PostgreSQL database.
type TaskPostgres struct {
	// URL without a password, or empty: URLFile has it. PasswordFile may be empty.
	URL, URLFile, PasswordFile string
	Schema                     string
	MaxConnections             int
	ConnectTimeout             time.Duration
}

// TaskKey is a key's file.
type TaskKey struct{ ID, File string }

// TaskQueue is one queue.
type TaskQueue struct {
	Name string
	// Workers run at once here; zero: apps work it.
	Workers  int
	Capacity int
	// CallerRuns: a submit that finds it full runs the task.
	CallerRuns bool
}

// TaskKind is what tasks of one kind have where they say nothing.
type TaskKind struct {
	Name string
	// App: apps lease its tasks.
	App                     bool
	MaxAttempts             int
	BackoffBase, BackoffMax time.Duration
	Timeout                 time.Duration
	Lease                   time.Duration // of apps'
	SLA                     sla.Targets
}

// TaskEmail is an SMTP server.
type TaskEmail struct {
	Server string
	// TLS from the first byte; Plain: none at all. Neither: STARTTLS.
	TLS, Plain             bool
	CAFile, ServerName     string
	Username, PasswordFile string
	From                   string
	SenderDomains          []string
	Templates              string // a folder; empty: none
	Domain                 string // of Message-IDs
	Hello                  string // empty: the host's name
	Timeout                time.Duration
	MaxConnections         int
}

// tasks resolves the block. nil: there is none.
func (f *file) tasks(m *configv1.Tasks) *Tasks {
	if m == nil {
		return nil
	}
	t := &Tasks{
		MaxPayload: int(or(m.MaxPayload, defaultTaskPayload)),
		Drain:      duration(m.GetDrain(), defaultTaskDrain),
	}
	t.Store = f.taskStore(m.GetStore())
	t.Store.Lease = duration(m.GetLease(), defaultTaskLease)
	f.taskQueues(t, m)
	f.taskKinds(t, m)
	slices.SortFunc(t.Queues, func(a, b TaskQueue) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Kinds, func(a, b TaskKind) int { return cmp.Compare(a.Name, b.Name) })
	t.Email = f.taskEmail(m.GetEmail())
	for i, s := range m.GetWebhookSecrets() {
		if _, twice := t.Webhooks[s.GetName()]; twice {
			f.refuse(fmt.Sprintf("tasks.webhook_secrets[%d].name", i), "%q is there already; want each once, with several files while it is replaced", s.GetName())
		}
		if t.Webhooks == nil {
			t.Webhooks = make(map[string][]string)
		}
		for _, path := range s.GetFiles() {
			t.Webhooks[s.GetName()] = append(t.Webhooks[s.GetName()], f.beside(path))
		}
	}
	return t
}

func (f *file) taskStore(m *configv1.TaskStore) TaskStore {
	r := m.GetRetention()
	s := TaskStore{
		Completed: duration(r.GetCompleted(), 24*time.Hour), Cancelled: duration(r.GetCancelled(), 24*time.Hour), Failed: duration(r.GetFailed(), 7*24*time.Hour),
	}
	known := make(map[string]bool)
	for i, k := range m.GetEncryption().GetKeys() {
		if known[k.GetId()] {
			f.refuse(fmt.Sprintf("tasks.store.encryption.keys[%d].id", i), "%q is the id of another key already; want an id of its own", k.GetId())
		}
		known[k.GetId()] = true
		s.Keys = append(s.Keys, TaskKey{ID: k.GetId(), File: f.beside(k.GetFile())})
	}
	if p := m.GetPostgres(); p != nil {
		if m.GetSqlite() != nil {
			f.refuse("tasks.store", "has both sqlite and postgres; want one of them")
		}
		s.Postgres = f.taskPostgres(p)
		return s
	}
	q := m.GetSqlite()
	s.SQLite = &TaskSQLite{Path: defaultTasksFile, Normal: q.GetDurability() == configv1.SqliteStore_NORMAL}
	if q != nil && q.Path != nil {
		s.SQLite.Path = q.GetPath()
	}
	return s
}

func (f *file) taskPostgres(m *configv1.PostgresStore) *TaskPostgres {
	const at = "tasks.store.postgres"
	p := &TaskPostgres{
		URL: m.GetUrl(), URLFile: f.beside(m.GetUrlFile()), PasswordFile: f.beside(m.GetPasswordFile()),
		Schema: or(m.Schema, defaultTaskSchema), MaxConnections: int(or(m.MaxConnections, defaultTaskConnections)),
		ConnectTimeout: duration(m.GetConnectTimeout(), defaultTaskConnect),
	}
	switch u, err := url.Parse(p.URL); {
	case p.URL == "" && p.URLFile == "":
		f.refuse(at, `does not say where it is; want url: "postgres://user@host:5432/database", or url_file`)
	case p.URL != "" && p.URLFile != "":
		f.refuse(at+".url_file", "is instead of url; want one of them")
	case p.URLFile != "" && p.PasswordFile != "":
		f.refuse(at+".password_file", "is for url; the URL in url_file holds the password itself")
	case p.URL == "":
	case err != nil:
		f.refuse(at+".url", "is no URL; want postgres://user@host:5432/database")
	case u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Path == "" || u.Path == "/":
		f.refuse(at+".url", "%q; want postgres://user@host:5432/database", u.Redacted())
	default:
		if _, has := u.User.Password(); has || u.Query().Has("password") {
			f.refuse(at+".url", "holds a password, which does not belong here; want password_file beside it, or url_file instead")
		}
	}
	return p
}

func (f *file) taskQueues(t *Tasks, m *configv1.Tasks) {
	fallback := TaskQueue{
		Name: DefaultTaskQueue, Workers: int(or(m.Workers, defaultTaskWorkers)), Capacity: int(or(m.QueueCapacity, defaultQueueCapacity)),
		CallerRuns: m.GetWhenFull() == configv1.TaskWhenFull_CALLER_RUNS,
	}
	first := make(map[string]int)
	for i, q := range m.GetQueues() {
		if j, twice := first[q.GetName()]; twice {
			f.refuse(fmt.Sprintf("tasks.queues[%d].name", i), "%q is the name of queues[%d] already; want a name of its own", q.GetName(), j)
			continue
		}
		first[q.GetName()] = i
		queue := TaskQueue{Name: q.GetName(), Workers: int(or(q.Workers, uint32(fallback.Workers))), Capacity: int(or(q.Capacity, uint32(fallback.Capacity))), CallerRuns: fallback.CallerRuns}
		if w := q.GetWhenFull(); w != configv1.TaskWhenFull_TASK_WHEN_FULL_UNSPECIFIED {
			queue.CallerRuns = w == configv1.TaskWhenFull_CALLER_RUNS
		}
		t.Queues = append(t.Queues, queue)
	}
	if _, written := first[DefaultTaskQueue]; !written {
		t.Queues = append(t.Queues, fallback)
	}
}

func (f *file) taskKinds(t *Tasks, m *configv1.Tasks) {
	first := make(map[string]int)
	for i, k := range m.GetKinds() {
		at := fmt.Sprintf("tasks.kinds[%d]", i)
		name := k.GetName()
		if j, twice := first[name]; twice {
			f.refuse(at+".name", "%q is the name of kinds[%d] already; want a name of its own", name, j)
			continue
		}
		first[name] = i
		kind := taskKind(name, k)
		f.checkTaskKind(at, k, kind)
		t.Kinds = append(t.Kinds, kind)
		if !kind.App {
			continue
		}
		if slices.ContainsFunc(t.Queues, func(q TaskQueue) bool { return q.Name == name }) {
			f.refuse(at+".name", "%q is a queue already, and a kind that apps work has a queue of its own name; want another name", name)
			continue
		}
		t.Queues = append(t.Queues, TaskQueue{Name: name, Capacity: int(or(k.Capacity, or(m.QueueCapacity, defaultQueueCapacity)))})
	}
	for _, name := range builtInKinds {
		if _, written := first[name]; !written {
			t.Kinds = append(t.Kinds, taskKind(name, nil))
		}
	}
}

func taskKind(name string, m *configv1.TaskKind) TaskKind {
	k := TaskKind{
		Name: name, App: !slices.Contains(builtInKinds, name), MaxAttempts: defaultTaskAttempts,
		BackoffBase: duration(m.GetBackoff().GetBase(), defaultTaskBase), SLA: taskTargets(m.GetSla()),
	}
	if m != nil {
		k.MaxAttempts = int(or(m.MaxAttempts, defaultTaskAttempts))
	}
	k.BackoffMax = duration(m.GetBackoff().GetMax(), max(defaultTaskMax, k.BackoffBase))
	if k.Timeout = duration(m.GetTimeout(), defaultTaskTimeout); k.App {
		k.Timeout, k.Lease = duration(m.GetTimeout(), defaultAppTimeout), duration(m.GetLease(), defaultWorkerLease)
	}
	return k
}

// taskTargets are those of tasks: nobody waits for them as for a call, so that no
// latency is promised where none is written.
func taskTargets(m *configv1.Sla) sla.Targets {
	t := targets(m)
	if len(m.GetLatency()) == 0 {
		t.Latency = nil
	}
	return t
}

func (f *file) checkTaskKind(at string, m *configv1.TaskKind, k TaskKind) {
	switch {
	case k.Name == "schedule":
		f.refuse(at+".name", `"schedule" is what schedules are; want another name`)
	case !k.App && m.GetLease() != nil:
		f.refuse(at+".lease", "is for kinds that apps work; the agent works %s itself", k.Name)
	case !k.App && m.Capacity != nil:
		f.refuse(at+".capacity", "is for kinds that apps work; %s tasks wait in the queues that they name", k.Name)
	case k.Name == "chain" && (m.MaxAttempts != nil || m.GetBackoff() != nil || m.GetTimeout() != nil):
		f.refuse(at, "a chain's steps are tried again, each as its own kind is, and not the chain; want no max_attempts, backoff and timeout here")
	}
	if k.BackoffMax < k.BackoffBase {
		f.refuse(at+".backoff.max", "%s is shorter than base (%s); want at least that", short(k.BackoffMax), short(k.BackoffBase))
	}
	if k.App && k.Lease > k.Timeout {
		f.refuse(at+".lease", "%s is longer than timeout (%s), which ends an attempt; want at most that", short(k.Lease), short(k.Timeout))
	}
	f.checkTargets(at+".sla", k.SLA)
}

func (f *file) taskEmail(m *configv1.TaskEmail) *TaskEmail {
	if m == nil {
		return nil
	}
	const at = "tasks.email"
	e := &TaskEmail{
		Server: m.GetServer(), CAFile: f.beside(m.GetCaFile()), ServerName: m.GetServerName(), Username: m.GetUsername(), PasswordFile: f.beside(m.GetPasswordFile()),
		From: m.GetFrom(), SenderDomains: m.GetSenderDomains(), Templates: f.beside(m.GetTemplates()), Domain: m.GetMessageIdDomain(), Hello: m.GetHello(),
		Timeout: duration(m.GetTimeout(), defaultEmailTimeout), MaxConnections: int(or(m.MaxConnections, defaultEmailConns)),
	}
	host, _, err := net.SplitHostPort(e.Server)
	if err != nil || host == "" {
		f.refuse(at+".server", "%q; want host:port, such as smtp.example.com:587", e.Server)
	}
	switch m.GetSecurity() {
	case configv1.TaskEmail_TLS:
		e.TLS = true
	case configv1.TaskEmail_NONE:
		e.Plain = true
	case configv1.TaskEmail_SECURITY_UNSPECIFIED:
		e.Plain = thisMachine(host)
	}
	if e.ServerName == "" {
		e.ServerName = host
	}
	switch {
	case (e.Username == "") != (e.PasswordFile == ""):
		f.refuse(at, "has one of username and password_file; want both, or neither")
	case e.Username != "" && e.Plain && !thisMachine(host):
		f.refuse(at+".security", "NONE would send the password readable to all on the way; want STARTTLS or TLS")
	}
	domain := ""
	if e.From != "" {
		sender, err := mail.ParseAddress(e.From)
		if err != nil {
			f.refuse(at+".from", "%q is no address; want one such as Shop <shop@example.com>", e.From)
		} else {
			domain = sender.Address[strings.LastIndexByte(sender.Address, '@')+1:]
		}
	}
	if e.Domain = cmp.Or(e.Domain, domain); e.Domain == "" && e.From == "" {
		f.refuse(at, "says neither from nor message_id_domain, and Message-IDs want a domain; want one of them")
	}
	return e
}

// thisMachine reports whether a host is the one that the agent runs on.
func thisMachine(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
