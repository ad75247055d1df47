package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/admin"
	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/tasks"
)

// reloads is the configuration in force and how it got there.
type reloads struct {
	// applying is held through a whole reload, which may wait for an old
	// collector; mu only where the fields below are read or written.
	applying sync.Mutex

	mu                sync.Mutex
	current           *config.Config
	generation        uint64 // how often a configuration was taken over
	succeeded, failed uint64
	problem           string    // of the last reload; empty: it succeeded
	loaded, tried     time.Time // when current came into force; when a reload was last tried
}

// config returns the configuration in force.
func (r *reloads) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.current
}

func (r *reloads) counts() (succeeded, failed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.succeeded, r.failed
}

// errNoFile refuses a reload of the built-in defaults.
var errNoFile = errors.New("the agent runs with its built-in defaults: there is no file to read again; start it with -c FILE")

// Reload reads the configuration file again and takes it over: what did not
// change keeps its state, and no call is lost. A file that is refused changes
// nothing; the error names every issue, and /readyz?verbose and the API show it.
func (a *Agent) Reload() error {
	if a.options.ConfigPath == "" {
		return errNoFile
	}
	a.reload.applying.Lock()
	defer a.reload.applying.Unlock()
	tried := time.Now()
	c, err := config.Load(a.options.ConfigPath)
	if err == nil {
		err = a.replace(c)
	}
	a.reload.mu.Lock()
	defer a.reload.mu.Unlock()
	a.reload.tried = tried
	if err != nil {
		a.reload.failed++
		a.reload.problem = err.Error()
		a.logger.Error("reload failed: the running configuration stays", "error", err)
		return err
	}
	a.reload.current, a.reload.loaded = c, a.reload.tried
	a.reload.generation++
	a.reload.succeeded++
	a.reload.problem = ""
	a.logger.Info("configuration reloaded", "file", a.options.ConfigPath, "services", len(c.Services), "generation", a.reload.generation)
	return nil
}

// replace takes c over. a.reload.applying is held, so current stays.
func (a *Agent) replace(c *config.Config) error {
	old := a.reload.config()
	if restart := config.Diff(old, c).Restart; len(restart) > 0 {
		return fmt.Errorf("%s: this can't change while the agent runs, restart it: %s", a.options.ConfigPath, strings.Join(restart, "; "))
	}
	opened, err := a.registry.prepare(c)
	if err != nil {
		return err
	}
	if err := a.replaceRest(old, c); err != nil {
		opened.close()
		return err
	}
	a.relay.SetTable(a.registry.apply(c, opened))
	return nil
}

// replaceRest takes over what is not the registry's.
func (a *Agent) replaceRest(old, c *config.Config) error {
	var settings tasks.Settings
	var files *taskFiles
	if a.tasks != nil {
		var err error
		if settings, files, err = openTaskSettings(a.logger, c.Tasks); err != nil {
			return err
		}
	}
	if c.Telemetry != old.Telemetry {
		if err := a.startTelemetry(c); err != nil {
			return errors.Join(err, files.close())
		}
		a.accessLog.setMode(logMode(c.Telemetry.AccessLog))
	}
	if a.tasks != nil {
		if err := a.tasks.apply(context.Background(), settings, files); err != nil {
			return errors.Join(err, files.close())
		}
	}
	return nil
}

// parts is what /readyz shows.
func (a *Agent) parts() []admin.Part {
	egress := admin.Part{Name: "egress", Detail: a.addresses.Egress}
	if !a.serving.Load() {
		egress.State, egress.Detail = admin.Down, "the agent is starting or draining"
	}
	a.reload.mu.Lock()
	defer a.reload.mu.Unlock()
	file := a.options.ConfigPath
	if file == "" {
		file = "built-in defaults"
	}
	settings := admin.Part{Name: "config", Detail: fmt.Sprintf("%s, generation %d", file, a.reload.generation)}
	if a.reload.problem != "" {
		settings.State, settings.Detail = admin.Warning, "the last reload failed, generation "+fmt.Sprint(a.reload.generation)+" stays: "+a.reload.problem
	}
	parts := []admin.Part{egress, {Name: "api", Detail: a.addresses.API}, settings}
	if a.reload.current.Chaos {
		chaos := admin.Part{Name: "chaos", State: admin.Warning, Detail: "chaos is enabled; no policy injects a fault now"}
		if names := faulty(a.reload.current); len(names) > 0 {
			chaos.Detail = "faults are injected into calls of " + strings.Join(names, ", ")
		}
		parts = append(parts, chaos)
	}
	if a.serving.Load() {
		for block, why := range a.doors.problems() {
			parts = append(parts, admin.Part{Name: block + ".tls", State: admin.Warning, Detail: why})
		}
		for service, why := range a.registry.problems() {
			parts = append(parts, admin.Part{Name: "tls of " + service, State: admin.Warning, Detail: why})
		}
		for _, s := range a.registry.discovered() {
			if why := s.complaint(); why != "" {
				parts = append(parts, admin.Part{Name: "endpoints of " + s.service, State: admin.Warning, Detail: why})
			}
		}
		parts = append(parts, a.taskParts()...)
	}
	return parts
}

// faulty names the services whose policies inject faults.
func faulty(c *config.Config) (names []string) {
	for i := range c.Services {
		s := &c.Services[i]
		injects := s.Policy.Fault.On()
		for _, p := range s.MethodPolicies {
			injects = injects || p.Fault.On()
		}
		if injects {
			names = append(names, s.Name)
		}
	}
	if c.Unmatched.Dial && c.Unmatched.Policy.Fault.On() {
		names = append(names, "unmatched authorities")
	}
	return names
}

// metrics answers /metrics with the telemetry of the moment.
func (a *Agent) metrics() http.Handler {
	if t := a.telemetry.Load(); t != nil {
		return t.MetricsHandler()
	}
	return nil
}
