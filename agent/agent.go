// Package agent is the composition root: configuration in, running agent out.
// It alone knows the rooms below it, hands each what it needs, and owns the
// start and the stop of every goroutine.
//
//	a, err := agent.New(agent.Options{ConfigPath: "outrigger.yaml"})
//	go func() { <-a.Ready(); … a.Addresses() }()
//	err = a.Run(ctx) // until ctx ends, then drains
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/admin"
	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/forward"
	"github.com/outrigger-rpc/outrigger/agent/health"
	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/agent/telemetry"
	"github.com/outrigger-rpc/outrigger/policy"
)

// DefaultDrainTimeout is how long calls under way may take when the agent
// stops.
const DefaultDrainTimeout = 30 * time.Second

// stopTimeout bounds what follows the drain: the last requests to the API and
// the admin pages, the last spans.
const stopTimeout = 3 * time.Second

// Options make an Agent.
type Options struct {
	// ConfigPath is the configuration file. Empty: the built-in defaults.
	ConfigPath string
	// Version is shown by the API and in telemetry.
	Version string
	// Logger gets what the agent has to say. nil: slog.Default.
	Logger *slog.Logger
	// DrainTimeout is how long calls under way may take when Run's context
	// ends. Zero: DefaultDrainTimeout.
	DrainTimeout time.Duration
}

// Addresses are where the agent listens: "host:port" or "unix:PATH".
type Addresses struct{ Egress, API, Admin string }

// Agent is one running agent. Make it with New, run it once with Run.
type Agent struct {
	options  Options
	logger   *slog.Logger
	origin   time.Time
	ready    chan struct{}
	patience context.Context // of drains: ended by Stop
	stop     context.CancelFunc

	doors       *doors
	relay       *relay.Relay
	forward     *forward.Server
	registry    *registry
	health      *health.Checker
	drains      *drains
	telemetry   atomic.Pointer[telemetry.Telemetry]
	transitions telemetry.Transitions
	accessLog   *accessLog
	tasks       *taskPlane // nil: there is no task executor
	deferrals   *deferrals // nil: likewise
	addresses   Addresses

	control  atomic.Pointer[api.Server] // hears of breakers that moved
	serving  atomic.Bool
	draining atomic.Bool
	reload   reloads
}

// New reads the configuration and returns an agent that does not run yet. A
// configuration that is refused is an error that names every issue.
func New(o Options) (*Agent, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	c := config.Default()
	if o.ConfigPath != "" {
		var err error
		if c, err = config.Load(o.ConfigPath); err != nil {
			return nil, err
		}
	}
	a := &Agent{options: o, logger: o.Logger, origin: time.Now().Add(-time.Nanosecond), ready: make(chan struct{})}
	a.patience, a.stop = context.WithCancel(context.Background())
	a.reload.current, a.reload.generation, a.reload.loaded = c, 1, time.Now()
	return a, nil
}

// Ready is closed once the agent serves.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Addresses returns where the agent listens. Only after Ready.
func (a *Agent) Addresses() Addresses { return a.addresses }

// Stop ends a drain at once: calls under way are cut off.
func (a *Agent) Stop() { a.stop() }

// Now returns the present Instant: monotonic time since the agent's origin.
func (a *Agent) Now() policy.Instant { return time.Since(a.origin) }

// Run serves until ctx ends, then drains and stops everything it started. An
// agent that can't start returns why; one that stopped as asked returns nil.
func (a *Agent) Run(ctx context.Context) error {
	tuneMemory()
	c := a.reload.config()
	doors, err := a.open(c)
	if err != nil {
		return err
	}
	defer doors.close()
	a.doors = doors
	if a.drains, err = openDrains(c.StateDir, a.logger); err != nil {
		return err
	}
	a.accessLog = newAccessLog(a.logger, a.origin, logMode(c.Telemetry.AccessLog))
	defer a.accessLog.close()
	a.startPlanes(c, doors)
	a.health = a.newHealth()
	defer a.health.Close()
	a.registry = newRegistry(a, newOwnPorts(doors.listeners()...))
	opened, err := a.registry.prepare(c)
	if err == nil {
		err = a.startTelemetry(c)
	}
	if err != nil {
		opened.close()
		return errors.Join(err, a.relay.Close())
	}
	a.relay.SetTable(a.registry.apply(c, opened))
	if a.tasks, err = a.newTaskPlane(ctx, c); err != nil {
		a.registry.close()
		return errors.Join(err, a.relay.Close())
	}

	o := api.Options{Origin: a.origin, Agent: source{a}, Registrar: registrar{a.registry}, Logger: a.logger}
	if a.tasks != nil {
		o.Tasks, o.MaxTask = a.tasks.executor, c.Tasks.MaxPayload
	}
	control := api.New(o)
	a.control.Store(control)
	pages := admin.New(admin.Options{Parts: a.parts, Metrics: a.metrics, Logger: a.logger})
	return a.serve(ctx, doors, control, pages)
}

// serve runs the listeners until ctx ends or one of them fails.
func (a *Agent) serve(ctx context.Context, d *doors, control *api.Server, pages *admin.Server) error {
	var running sync.WaitGroup
	failed := make(chan error, 3)
	run := func(what string, serve func(net.Listener) error, on net.Listener) {
		running.Go(func() {
			if err := serve(on); err != nil {
				failed <- fmt.Errorf("%s stopped: %w", what, err)
			}
		})
	}
	run("egress", a.relay.Serve, d.egress.listener)
	run("api", control.Serve, d.api.secured("h2"))
	run("admin", pages.Serve, d.admin.secured("http/1.1"))
	watch, endWatch := context.WithCancel(ctx)
	if a.options.ConfigPath != "" {
		loaded := a.reload.config().Digest
		running.Go(func() {
			if err := config.Watch(watch, a.options.ConfigPath, loaded, func() { _ = a.Reload() }); err != nil {
				a.logger.Warn("the configuration file is not watched: reload by SIGHUP", "error", err)
			}
		})
	}
	sweeping, endSweep := context.WithCancel(context.Background()) // calls of the drain need endpoints too
	defer endSweep()
	running.Go(func() { sweep(sweeping, a.registry.all, a.Now, a.registry.follow) })
	a.serving.Store(true)
	a.logger.Info("serving", "egress", a.addresses.Egress, "api", a.addresses.API, "admin", a.addresses.Admin)
	close(a.ready)
	releaseMemory()

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		a.logger.Error("a listener failed: stopping", "error", err)
	}
	a.serving.Store(false)
	a.draining.Store(true)
	endWatch()
	a.drainTasks() // while what they call is served as before
	a.drain()
	stop, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	control.Shutdown(stop)
	err = errors.Join(err, pages.Shutdown(stop), a.tasks.close())
	endSweep()
	running.Wait()
	a.health.Close() // before the identities that it connects with
	a.registry.close()
	if t := a.telemetry.Load(); t != nil {
		if e := t.Shutdown(stop); e != nil {
			a.logger.Warn("the last telemetry was not sent", "error", e)
		}
	}
	a.logger.Info("stopped")
	return err
}

// drain lets calls under way finish, until the timeout or Stop.
func (a *Agent) drain() {
	stats := a.relay.Stats()
	a.logger.Info("draining", "calls", stats.ActiveCalls, "connections", stats.DownstreamConnections, "at_most", a.options.DrainTimeout)
	ctx, cancel := context.WithTimeout(a.patience, a.options.DrainTimeout)
	defer cancel()
	var requests, permits error // requests are those that are not HTTP/2
	var others sync.WaitGroup
	others.Go(func() { requests = a.forward.Shutdown(ctx) })
	others.Go(func() { permits = a.control.Load().Drain(ctx) })
	calls := a.relay.Drain(ctx)
	others.Wait()
	if err := errors.Join(calls, requests, permits); err != nil {
		a.logger.Warn("calls were cut off", "error", err)
	}
}

// startTelemetry makes the providers that c asks for.
func (a *Agent) startTelemetry(c *config.Config) error {
	t, err := telemetry.New(telemetry.Options{
		Version: a.options.Version,
		Source: telemetry.Source{
			Origin: a.origin, Services: a.registry.all, Relay: a.relayStats, Reloads: a.reload.counts, Transitions: &a.transitions, Health: a.healthCounts,
			Discovery: a.registry.discoveryStats, Tasks: a.taskStats,
		},
		Prometheus: c.Telemetry.Prometheus, OTLPEndpoint: c.Telemetry.OTLPEndpoint, SampleRatio: c.Telemetry.SampleRatio, Logger: a.logger,
	})
	if err != nil {
		return fmt.Errorf("telemetry.otlp.endpoint: %w", err)
	}
	if old := a.telemetry.Swap(t); old != nil {
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := old.Shutdown(ctx); err != nil {
			a.logger.Warn("the last telemetry to the old endpoint was not sent", "error", err)
		}
	}
	return nil
}

// relayStats are the data plane's figures as telemetry names them.
func (a *Agent) relayStats() telemetry.RelayStats {
	s := a.relay.Stats()
	r := telemetry.RelayStats{
		DownstreamConnections: int64(s.DownstreamConnections), UpstreamConnections: int64(s.UpstreamConnections),
		ActiveCalls: int64(s.ActiveCalls), Calls: s.CallsTotal, BytesUp: s.BytesUp, BytesDown: s.BytesDown,
	}
	for kind, n := range s.ProtocolErrorsTotal {
		r.ProtocolErrors = append(r.ProtocolErrors, policy.Count{Label: kind, Total: n})
	}
	for limit, n := range s.CutOffsTotal {
		r.CutOffs = append(r.CutOffs, policy.Count{Label: limit, Total: n})
	}
	r.HandshakeFailures, r.SilentDeaths = s.HandshakeFailuresTotal, s.SilentDeathsTotal
	return r
}

func logMode(m config.AccessLog) accessLogMode {
	switch m {
	case config.LogNothing:
		return accessLogOff
	case config.LogAll:
		return accessLogAll
	}
	return accessLogErrors
}
