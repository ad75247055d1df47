package telemetry

import (
	"go.opentelemetry.io/otel/attribute"
)

// instrument is one metric as users see it. The name is OpenTelemetry's;
// Prometheus gets dots as underscores, the unit and, for counters, _total.
type instrument struct {
	name, unit, help string
}

// Every metric that the agent reports. Names come from OpenTelemetry's semantic
// conventions where those have one; the others are under "outrigger.". None
// ends in ".count", which Prometheus keeps for histograms.
var (
	// Calls by service.
	callDuration = instrument{"rpc.client.call.duration", "s",
		"How long calls took, from their arrival to their last byte. Streams are not in it."}
	calls = instrument{"outrigger.calls", "{call}",
		"Calls that ended, by the gRPC status that the caller got."}
	refusals = instrument{"outrigger.refusals", "{call}",
		"Calls that the agent refused or ended by itself, by reason."}
	observedRefusals = instrument{"outrigger.refusals.observed", "{call}",
		"Calls that a policy in OBSERVE let pass and would have refused in ENFORCE."}
	retries = instrument{"outrigger.retries", "{attempt}",
		"Attempts after a call's first, hedges included."}
	actions = instrument{"outrigger.policy.actions", "{action}",
		"What policies did beside refusing, and what those in OBSERVE would have done (would_…)."}
	concurrencyLimit = instrument{"outrigger.concurrency.limit", "{call}",
		"Calls that may be in flight; an adaptive limit moves."}
	concurrencyCalls = instrument{"outrigger.concurrency.calls", "{call}",
		"Calls at the concurrency limit, in flight and waiting for a slot."}
	cacheLookups = instrument{"outrigger.cache.lookups", "{call}",
		"Calls that a cache was asked about, by what came of it."}
	cacheBytes = instrument{"outrigger.cache.size", "By",
		"What a cache keeps."}

	// Endpoints.
	endpoints = instrument{"outrigger.endpoints", "{endpoint}",
		"Endpoints of a service by their present state."}
	endpointAttempts = instrument{"outrigger.endpoint.attempts", "{attempt}",
		"Attempts sent to an endpoint."}
	endpointFailures = instrument{"outrigger.endpoint.failures", "{attempt}",
		"Attempts that failed and that the endpoint is to blame for."}
	endpointWeight = instrument{"outrigger.endpoint.reported_weight", "{request}/s",
		"The weight that an endpoint's load reports give it now, where calls are balanced by reports; 0: none counts."}
	endpointActive = instrument{"outrigger.endpoint.attempts.active", "{attempt}",
		"Attempts that are on their way to an endpoint now."}
	healthChecks = instrument{"outrigger.health.checks", "{check}",
		"Active checks of a service's endpoints, by outcome."}

	// Where endpoints come from, by service; lists in the configuration aside.
	discoveryAge = instrument{"outrigger.discovery.age", "s",
		"How long ago a source of endpoints last said what there is, where it fails; 0: it is well."}
	discoveryStale = instrument{"outrigger.discovery.stale", "",
		"1 where a source of endpoints fails and the last good set is used, else 0."}
	discoveryEndpoints = instrument{"outrigger.discovery.endpoints", "{endpoint}",
		"Endpoints in the last set that a source gave."}
	discoveryChanges = instrument{"outrigger.discovery.changes", "{change}",
		"Sets that a source gave, each different from the one before."}

	// Breakers.
	breakerState = instrument{"outrigger.breaker.state", "",
		"1 for the state that a circuit breaker is in, 0 for the others."}
	breakerTransitions = instrument{"outrigger.breaker.transitions", "{transition}",
		"Changes of state of a service's circuit breakers."}

	// What was promised and what is kept.
	slaAttained = instrument{"outrigger.sla.attained", "1",
		"Share of calls in the window that kept the objective."}
	slaTarget = instrument{"outrigger.sla.target", "1",
		"Share of calls that has to keep the objective."}
	slaLatency = instrument{"outrigger.sla.latency", "s",
		"Latency at the quantile in the window."}
	slaLatencyTarget = instrument{"outrigger.sla.latency.target", "s",
		"Highest latency that the quantile may have."}
	slaVerdict = instrument{"outrigger.sla.verdict", "",
		"1 for an objective's present verdict, 0 for the others."}
	slaBudget = instrument{"outrigger.sla.budget.left", "1",
		"Share of the window's error budget that is left."}
	slaBurn = instrument{"outrigger.sla.burn.rate", "1",
		"How fast the error budget is spent; 1 spends it in exactly the window."}

	// The data plane.
	relayConnections = instrument{"outrigger.relay.connections", "{connection}",
		"Open connections, to the agent (downstream) and from it (upstream)."}
	relayActive = instrument{"outrigger.relay.calls.active", "{call}",
		"Calls that are going through the agent now."}
	relayCalls = instrument{"outrigger.relay.calls", "{call}",
		"Calls that arrived, those to no service included."}
	relayBytes = instrument{"outrigger.relay.bytes", "By",
		"Bytes of bodies relayed, up (requests) and down (responses)."}
	relayErrors = instrument{"outrigger.relay.protocol.errors", "{error}",
		"Peers' breaches of HTTP/2 or gRPC, by kind."}

	relayCutOffs = instrument{"outrigger.relay.cut.offs", "{connection}",
		"Clients that were cut off or turned away, by the limit that they passed."}
	relayHandshakes = instrument{"outrigger.relay.handshake.failures", "{connection}",
		"TLS handshakes with clients that failed."}
	relaySilent = instrument{"outrigger.relay.silent.deaths", "{connection}",
		"Connections to endpoints that were given up because not even a PING was answered."}

	// Tasks.
	tasks = instrument{"outrigger.tasks", "{task}",
		"Tasks in a queue by their present state; FAILED are the dead letters that are kept."}
	taskCapacity = instrument{"outrigger.task.capacity", "{task}",
		"Tasks that may wait in a queue."}
	taskOldest = instrument{"outrigger.task.oldest.age", "s",
		"How long the task of a queue that waits longest has waited past its time."}
	taskPaused = instrument{"outrigger.task.paused", "",
		"1 where a queue is paused, else 0."}
	taskAttempts = instrument{"outrigger.task.attempts", "{attempt}",
		"Attempts of tasks that ended, by outcome."}
	taskWait = instrument{"outrigger.task.wait.duration", "s",
		"How long tasks waited past their time until an attempt began."}
	taskRun = instrument{"outrigger.task.run.duration", "s",
		"How long attempts of tasks took."}
	taskSubmits = instrument{"outrigger.task.submits", "{task}",
		"Tasks that were submitted, by what came of it."}
	taskCommits = instrument{"outrigger.task.store.commits", "{commit}",
		"Transactions that the task store committed."}
	taskWrites = instrument{"outrigger.task.store.writes", "{write}",
		"Submits and endings of tasks in those transactions: those that come together share one."}
	taskStore = instrument{"outrigger.task.store.usable", "",
		"1 while tasks can be accepted and run, 0 where the store can't be used."}

	// The process.
	reloads = instrument{"outrigger.config.reloads", "{reload}",
		"Reloads of the configuration, by outcome."}
	buildInfo = instrument{"outrigger.build.info", "",
		"1, with what the agent was built from."}
	goroutines = instrument{"outrigger.goroutines", "{goroutine}",
		"Live goroutines."}
	openFiles = instrument{"outrigger.open.files", "{file}",
		"Open file descriptors, sockets included."}
	goMemory = instrument{"go.memory.used", "By",
		"Memory used by the Go runtime."}
	goGoal = instrument{"go.memory.gc.goal", "By",
		"Heap size target for the end of the GC cycle."}
	goCycles = instrument{"go.memory.gc.cycles", "{gc_cycle}",
		"Number of completed GC cycles."}
	processMemory = instrument{"process.memory.usage", "By",
		"The amount of physical memory in use."}
	processCPU = instrument{"process.cpu.time", "s",
		"Total CPU seconds broken down by different states."}
	processUptime = instrument{"process.uptime", "s",
		"The time the process has been running."}
)

// Attributes of metrics and spans. A metric's attributes are bounded: services,
// endpoints and policies come from the configuration (and, with unmatched:
// DIAL, from a bounded cache); methods appear only where a breaker is kept for
// each, which bounds them; peers and authorities appear on spans alone.
const (
	keyService   = attribute.Key("outrigger.service")
	keyMethod    = attribute.Key("outrigger.method")
	keyEndpoint  = attribute.Key("outrigger.endpoint")
	keyReason    = attribute.Key("outrigger.reason")
	keyPolicy    = attribute.Key("outrigger.policy")
	keyState     = attribute.Key("outrigger.state")
	keyMode      = attribute.Key("outrigger.mode")
	keyFrom      = attribute.Key("outrigger.from")
	keyTo        = attribute.Key("outrigger.to")
	keyObjective = attribute.Key("outrigger.objective")
	keyVerdict   = attribute.Key("outrigger.verdict")
	keyWindow    = attribute.Key("outrigger.window")
	keySide      = attribute.Key("outrigger.side")
	keyKind      = attribute.Key("outrigger.kind")
	keyLimit     = attribute.Key("outrigger.limit")
	keyOutcome   = attribute.Key("outrigger.outcome")
	keyAction    = attribute.Key("outrigger.action")
	keyQuantile  = attribute.Key("outrigger.quantile")
	keyVersion   = attribute.Key("outrigger.version")
	keyGoVersion = attribute.Key("outrigger.go.version")
	keyDirection = attribute.Key("outrigger.direction")
	keyQueue     = attribute.Key("outrigger.queue")

	// Spans only.
	keyTask             = attribute.Key("outrigger.task")
	keyWaited           = attribute.Key("outrigger.task.waited")
	keyAttempt          = attribute.Key("outrigger.attempt")
	keyAttempts         = attribute.Key("outrigger.attempts")
	keyAuthority        = attribute.Key("outrigger.authority")
	keyMessage          = attribute.Key("outrigger.message")
	keyRequestBytes     = attribute.Key("outrigger.request.bytes")
	keyResponseBytes    = attribute.Key("outrigger.response.bytes")
	keyRequestMessages  = attribute.Key("outrigger.request.messages")
	keyResponseMessages = attribute.Key("outrigger.response.messages")

	// OpenTelemetry's own. rpc.system, rpc.service and rpc.grpc.status_code are
	// the names that backends know; rpc.system.name and
	// rpc.response.status_code those that the conventions moved to.
	keyRPCSystem     = attribute.Key("rpc.system")
	keyRPCSystemName = attribute.Key("rpc.system.name")
	keyRPCService    = attribute.Key("rpc.service")
	keyRPCMethod     = attribute.Key("rpc.method")
	keyRPCStatusCode = attribute.Key("rpc.grpc.status_code")
	keyRPCStatusName = attribute.Key("rpc.response.status_code")
	keyServerAddress = attribute.Key("server.address")
	keyServerPort    = attribute.Key("server.port")
	keyPeer          = attribute.Key("network.peer.address")
	keyMemoryType    = attribute.Key("go.memory.type")
	keyCPUMode       = attribute.Key("cpu.mode")
)
