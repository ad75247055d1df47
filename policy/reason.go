package policy

// Code is a gRPC status code, numbered as the gRPC protocol does.
type Code uint32

// The gRPC status codes.
const (
	OK Code = iota
	Canceled
	Unknown
	InvalidArgument
	DeadlineExceeded
	NotFound
	AlreadyExists
	PermissionDenied
	ResourceExhausted
	FailedPrecondition
	Aborted
	OutOfRange
	Unimplemented
	Internal
	Unavailable
	DataLoss
	Unauthenticated
	// NumCodes is how many codes the protocol knows. A code from it on is
	// treated as Unknown.
	NumCodes
)

var codeNames = [NumCodes]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
	"PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// String returns the code's name as the protocol spells it.
func (c Code) String() string {
	if c < NumCodes {
		return codeNames[c]
	}
	return "UNKNOWN"
}

// Reason says why the agent refused or ended a call by itself. The same word
// stands in the caller's ErrorInfo, in metrics and in spans.
type Reason uint8

// The reasons. ReasonNone, the zero value: the upstream's own answer.
const (
	ReasonNone Reason = iota
	NoRoute
	BreakerOpen
	NoEndpoints
	AllUnhealthy
	ConnectFailed
	ConnectionLost
	ConcurrencyLimit
	QueueTimeout
	RateLimit
	Timeout
	Deadline
	Protocol
	RequestTooLarge
	Draining
	// TLS: the endpoint's certificate, or ours, was not accepted.
	TLS
	// DeferOff: outrigger-defer where deferring is off.
	DeferOff
	// NotDeferrable: outrigger-defer of what can't be kept for later, a stream for
	// example.
	NotDeferrable
	// TaskQueueFull: the task executor has all the tasks that it may have.
	TaskQueueFull
	// TaskStore: tasks can't be stored now.
	TaskStore
	// Throttled: dropped here because the endpoints refuse too many.
	Throttled
	// FaultInjected: failed on purpose.
	FaultInjected
	// NotCached: the caller wanted an answer from the cache only.
	NotCached
	// CallerCanceled is no refusal: the caller gave up. It never reaches it.
	CallerCanceled
	numReasons
)

// reasons is the one table from reason to gRPC status.
var reasons = [numReasons]struct {
	name string
	code Code
}{
	ReasonNone:       {"", OK},
	NoRoute:          {"NO_ROUTE", Unimplemented},
	BreakerOpen:      {"BREAKER_OPEN", Unavailable},
	NoEndpoints:      {"NO_ENDPOINTS", Unavailable},
	AllUnhealthy:     {"ALL_UNHEALTHY", Unavailable},
	ConnectFailed:    {"CONNECT_FAILED", Unavailable},
	ConnectionLost:   {"CONNECTION_LOST", Unavailable},
	ConcurrencyLimit: {"CONCURRENCY_LIMIT", ResourceExhausted},
	QueueTimeout:     {"QUEUE_TIMEOUT", ResourceExhausted},
	RateLimit:        {"RATE_LIMIT", ResourceExhausted},
	Timeout:          {"TIMEOUT", DeadlineExceeded},
	Deadline:         {"DEADLINE", DeadlineExceeded},
	Protocol:         {"PROTOCOL", Internal},
	RequestTooLarge:  {"REQUEST_TOO_LARGE", ResourceExhausted},
	Draining:         {"DRAINING", Unavailable},
	TLS:              {"TLS", Unavailable},
	DeferOff:         {"DEFER_OFF", FailedPrecondition},
	NotDeferrable:    {"NOT_DEFERRABLE", FailedPrecondition},
	TaskQueueFull:    {"TASK_QUEUE_FULL", ResourceExhausted},
	TaskStore:        {"TASK_STORE", Unavailable},
	Throttled:        {"THROTTLED", ResourceExhausted},
	FaultInjected:    {"FAULT_INJECTED", Unavailable},
	NotCached:        {"NOT_CACHED", NotFound},
	CallerCanceled:   {"CANCELLED", Canceled},
}

// String returns the reason's public name, empty for ReasonNone.
func (r Reason) String() string { return reasons[r].name }

// Code returns the gRPC status that the reason is answered with.
func (r Reason) Code() Code { return reasons[r].code }

// Reasons returns every reason that can stand in an ErrorInfo, in order.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons)
	for r := NoRoute; r < CallerCanceled; r++ {
		all = append(all, r)
	}
	return all
}
