// Package api is the agent's gRPC side: it shows what the agent sees, moves what
// operators may move, and gives permits to what does not go through the agent.
// It is thin: what it knows it reads from the agent's services at the time of a
// request, and it keeps nothing of its own but the permits that are out.
//
//	server := api.New(api.Options{Origin: origin, Agent: agent, Logger: logger})
//	go server.Serve(listener)
//	…
//	server.Changed() // at every change of a breaker's state: watchers look at once
//	…
//	server.Drain(ctx) // permits that are out may still be reported
//	server.Shutdown(ctx)
//
// It serves outrigger.v1's AgentService, BreakerService, EndpointService,
// SlaService, TaskService and ResilienceService, grpc.health.v1 and server
// reflection. Watch streams send what is there at first, then what changes, and end
// with UNAVAILABLE when the agent does.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// The server's limits. The listener is a loopback address by default, but may
// be a pod's, so one client must not be able to hold it.
const (
	maxConnections = 128
	maxStreams     = 1000     // at a time, of one connection: those who wait for tasks are many
	maxWatchers    = 64       // at a time, of all connections
	maxRequest     = 64 << 10 // a batch of Guard included: about 600 operations with long names
	maxTasks       = 4 << 20  // a request to TaskService; more where one task may be larger
	maxHeaderBytes = 16 << 10
	bufferSize     = 4 << 10 // of each connection and direction; the standard is 32 KiB
	connectTimeout = 5 * time.Second
	// A client that is gone without a word is noticed after pingEvery and
	// pingTimeout; one that pings more often than pingLeast is sent away.
	pingEvery   = 30 * time.Second
	pingTimeout = 10 * time.Second
	pingLeast   = 10 * time.Second
	// endGrace is how long requests may go on once watch streams were ended:
	// none of them takes long.
	endGrace = 2 * time.Second
)

// Agent is what the API shows and moves. Its methods are safe for concurrent
// use; all but Reload and Drained must not block.
type Agent interface {
	// Info says what runs, and with which configuration.
	Info() Info
	// Services returns the services that live now, in any order.
	Services() []*policy.Service
	// TaskPromises returns what SLAs are kept of tasks, by kind, in a slice of the
	// caller's own. None where there is no task executor.
	TaskPromises() []Promise
	// Note says what a policy in OBSERVE would have made of an endpoint; empty:
	// nothing.
	Note(*balancer.Endpoint) string
	// Drained is told of an endpoint that was drained, or let come back, so that
	// it can be kept. It may write a file.
	Drained(service, address string, on bool)
	// Traffic reads the data plane's figures.
	Traffic() Traffic
	// Discovery says where a service's endpoints come from; false: from nowhere,
	// it was dialled or is no more.
	Discovery(service string) (Discovery, bool)
	// Reload reads the configuration file again. An error says what is wrong
	// and leaves the running configuration in force.
	Reload(ctx context.Context) error
}

// Info is what runs.
type Info struct {
	Version string
	// ConfigPath is the configuration file; empty: the built-in defaults.
	ConfigPath string
	// ConfigGeneration counts the configurations that were in force, the first
	// one included.
	ConfigGeneration uint64
	// ConfigLoaded is when the present one came into force. LastReload is when
	// a reload was last tried, whatever came of it; zero: never.
	ConfigLoaded, LastReload time.Time
	// ReloadError is why the last reload failed; empty: it did not.
	ReloadError string
	// Egress, API and Admin are the addresses as a configuration has them.
	Egress, API, Admin string
	// Draining: the agent was told to end.
	Draining bool
}

// Discovery is a service's source of endpoints now.
type Discovery struct {
	// Source says which it is, in a few words.
	Source string
	// Version counts the sets that came from it; 0: it has not answered yet.
	Version uint64
	// Endpoints is how many are in the last one.
	Endpoints int
	// Stale: it fails, and the last good set is used.
	Stale bool
	// Age is how long ago it last said what the set is; zero: the set is right.
	Age time.Duration
	// Problem is why it fails, or what the set lacks; empty: nothing.
	Problem string
}

// Traffic is what goes through the agent.
type Traffic struct {
	// Calls arrived so far; ActiveCalls are in flight.
	Calls       uint64
	ActiveCalls int
	// DownstreamConnections come from apps, UpstreamConnections go to
	// endpoints.
	DownstreamConnections, UpstreamConnections int
	// BufferedBytes of requests and answers are held now.
	BufferedBytes int64
}

// Options says what the server shows.
type Options struct {
	// Origin is what instants are relative to. Zero: when New is called.
	Origin time.Time
	// Agent is what the API shows. It must not be nil.
	Agent Agent
	// Registrar keeps endpoints that programs register. nil: none can be.
	Registrar Registrar
	// Tasks keeps tasks. nil: none are kept. MaxTask is how many bytes one may have.
	Tasks   Tasks
	MaxTask int
	// Logger hears of what operators changed (INFO), of requests (DEBUG) and
	// of their failures. nil: nobody does.
	Logger *slog.Logger
}

// Server serves the API. Make it with New. Safe for concurrent use.
type Server struct {
	origin time.Time
	agent  Agent
	log    *slog.Logger
	// registrar may be nil; registrars counts the streams that use it.
	registrar  Registrar
	registrars atomic.Int32
	listening  sync.WaitGroup // the goroutines that read from those streams
	tasks      Tasks          // may be nil
	grpc       *grpc.Server
	health     *health.Server
	changes    broadcast
	// watchers counts the watch streams that are open.
	watchers atomic.Int32
	// ending ends at Shutdown, and the watch streams with it.
	ending context.Context
	end    context.CancelFunc
	// permits are those of ResilienceService, and readers the goroutines that
	// read its streams.
	permits *permits
	readers sync.WaitGroup
}

// New returns a server that is not serving yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Origin.IsZero() {
		o.Origin = time.Now()
	}
	s := &Server{origin: o.Origin, agent: o.Agent, registrar: o.Registrar, tasks: o.Tasks, log: o.Logger, health: health.NewServer()}
	s.ending, s.end = context.WithCancel(context.Background())
	s.permits = newPermits(s)
	largest := maxRequest
	if o.Tasks != nil {
		largest = max(maxTasks, o.MaxTask+maxRequest) // other services' requests are bounded by sized
	}
	s.grpc = grpc.NewServer(append(s.interceptors(),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(largest),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ReadBufferSize(bufferSize),
		grpc.WriteBufferSize(bufferSize),
		grpc.ConnectionTimeout(connectTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingEvery, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingLeast, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
	)...)
	outriggerv1.RegisterAgentServiceServer(s.grpc, &agentService{server: s})
	outriggerv1.RegisterBreakerServiceServer(s.grpc, &breakerService{server: s})
	outriggerv1.RegisterEndpointServiceServer(s.grpc, &endpointService{server: s})
	outriggerv1.RegisterSlaServiceServer(s.grpc, &slaService{server: s})
	outriggerv1.RegisterTaskServiceServer(s.grpc, &taskService{server: s})
	outriggerv1.RegisterResilienceServiceServer(s.grpc, &resilienceService{server: s})
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, healthv1.HealthCheckResponse_SERVING)
	}
	return s
}

// Serve answers requests on l until Shutdown; then it returns nil. Several
// listeners may be served.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(netutil.LimitListener(l, maxConnections))
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Shutdown ends the watch streams, stops accepting, and waits for the requests
// under way until ctx ends, but 2 s at most; those left are cut then. All the
// server's goroutines have ended when it returns.
func (s *Server) Shutdown(ctx context.Context) {
	s.health.Shutdown()
	s.end()
	ctx, cancel := context.WithTimeout(ctx, endGrace)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		s.grpc.Stop()
		<-stopped
	}
	s.readers.Wait()
	s.permits.alarm.stop()
	s.listening.Wait()
}

// Drain refuses new permits with DRAINING, ends Guard streams whose permits are
// all reported, and waits until none is out, or until ctx ends; then its error
// says how many were left. Call Shutdown afterwards. Everything else is served
// on.
func (s *Server) Drain(ctx context.Context) error { return s.permits.drain(ctx) }

// Changed says that something that watchers look at has changed, such as a
// breaker's state. It never blocks and costs next to nothing without watchers.
func (s *Server) Changed() { s.changes.signal() }

// now returns the instant of now.
func (s *Server) now() policy.Instant { return time.Since(s.origin) }
