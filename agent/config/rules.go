package config

import (
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"weak"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// expected says in plain words what a field wants, where its rule is a pattern
// or a length that only a program reads with ease.
var expected = map[protoreflect.FullName]string{
	"outrigger.config.v1.Listener.address":              "want host:port or unix:PATH",
	"outrigger.config.v1.Endpoint.address":              "want host:port or unix:PATH",
	"outrigger.config.v1.DnsEndpoints.host":             "want a name such as greeter.default.svc, without its port, or an IP address",
	"outrigger.config.v1.DnsEndpoints.srv":              "want the name of SRV records, such as _grpc._tcp.greeter.default.svc",
	"outrigger.config.v1.FileEndpoints.path":            "want the path of a file that lists endpoints, such as endpoints.yaml",
	"outrigger.config.v1.KubernetesEndpoints.namespace": "want the name of a namespace: up to 63 of a-z 0-9 -",
	"outrigger.config.v1.KubernetesEndpoints.service":   "want the name of a Kubernetes service: a-z 0-9 - with a letter or digit at both ends",
	"outrigger.config.v1.Service.name":                  "want up to 128 letters, digits and . _ : - with a letter or digit at both ends",
	"outrigger.config.v1.Service.endpoints":             `want where its calls go, such as endpoints: {static: [{address: "127.0.0.1:50051"}]}`,
	"outrigger.config.v1.Match.authorities":             "want a host or host:port without scheme, path or wildcard",
	"outrigger.config.v1.Match.methods":                 "want a prefix of /package.Service/Method, such as /helloworld.Greeter/",
	"outrigger.config.v1.MethodPolicy.method":           "want /package.Service/Method, or /package.Service/ for all of a service's",
	"outrigger.config.v1.MethodPolicy.policy":           "want what differs for the method, such as policy: {timeout: 30s}",
	"outrigger.config.v1.Tls.min_version":               "want \"1.2\" or \"1.3\"",
	"outrigger.config.v1.DialAllow.cidr":                "want an address or a range such as 10.0.0.0/8",
	"outrigger.config.v1.DialAllow.ports":               "want a port or a range such as \"8000-9000\"",
	"outrigger.config.v1.Http.failure_statuses":         "want a status, a class or a range, such as \"503\", \"5xx\" or \"201-599\"",
	"outrigger.config.v1.Http.pushback_statuses":        "want a status, a class or a range, such as \"503\", \"5xx\" or \"201-599\"",
	"outrigger.config.v1.Retry.codes":                   "want a gRPC code of a failure, such as UNAVAILABLE",
	"outrigger.config.v1.Hedge.non_fatal_codes":         "want a gRPC code of a failure, such as UNAVAILABLE",
	"outrigger.config.v1.FaultAbort.code":               "want a gRPC code of a failure, such as UNAVAILABLE",
	"outrigger.config.v1.Fallback.code":                 "want a gRPC code, such as OK or UNAVAILABLE",
	"outrigger.config.v1.Fallback.message_type":         "want the full name of a message, such as helloworld.HelloReply",
	"outrigger.config.v1.RateLimitKey.header":           "want the name of request metadata in lower case, such as x-tenant",
	"outrigger.config.v1.FaultHeader.name":              "want the name of request metadata in lower case, such as x-chaos",
	"outrigger.config.v1.Cache.metadata":                "want the name of request metadata in lower case, such as x-tenant",
	"outrigger.config.v1.LatencyTarget.target":          "want how long the calls take at most, such as target: 200ms",
	"outrigger.config.v1.HttpCheck.path":                "want a path, such as /health",
	"outrigger.config.v1.HttpCheck.host":                "want a host or host:port without scheme or path",
	"outrigger.config.v1.HttpCheck.expected_statuses":   "want a status, a class or a range, such as \"204\", \"2xx\" or \"200-399\"",
	"outrigger.config.v1.HashOn.header":                 "want the name of request metadata in lower case, such as x-user-id",
	"outrigger.config.v1.TaskQueue.name":                "want a letter a-z, then letters a-z, digits, _ and -, such as newsletters",
	"outrigger.config.v1.TaskKind.name":                 "want a letter a-z, then letters a-z, digits and . _ -, such as save-user",
	"outrigger.config.v1.TaskKey.id":                    "want up to 32 letters, digits and . _ -, such as 2026-11",
	"outrigger.config.v1.TaskKey.file":                  "want the path of a file that holds 32 bytes, such as those of openssl rand -hex 32",
	"outrigger.config.v1.TaskEmail.server":              "want host:port, such as smtp.example.com:587",
	"outrigger.config.v1.PostgresStore.schema":          "want a name of a-z, digits and _",
	"outrigger.config.v1.HashOn.cookie":                 "want the name of a cookie, such as session",
}

// rules holds the message against those of the proto files.
func (f *file) rules(message proto.Message) {
	v, err := validator()
	if err == nil {
		err = v.Validate(message)
	}
	var violations *protovalidate.ValidationError
	switch {
	case err == nil:
	case errors.As(err, &violations):
		for _, violation := range violations.Violations {
			path := protovalidate.FieldPathString(violation.Proto.GetField())
			f.refuse(path, "%s", f.broken(path, violation))
		}
	default:
		f.refuse("", "the rules can't be applied: %v", err)
	}
}

// broken says which rule is broken, by which value, and what was expected.
func (f *file) broken(path string, violation *protovalidate.Violation) string {
	written, rule, message := clipped(f.scalar(path)), violation.Proto.GetRuleId(), violation.Proto.GetMessage()
	want := ""
	if field := fieldAt(f.message, path); field != nil {
		want = expected[field.FullName()]
	}
	switch {
	case rule == "required":
		return strings.TrimSuffix("is missing; "+want, "; ")
	case want != "" && strings.HasPrefix(rule, "string."):
		return strconv.Quote(written) + ": " + want
	}
	message = inSeconds.ReplaceAllStringFunc(message, func(text string) string {
		if d, err := time.ParseDuration(text); err == nil {
			return short(d)
		}
		return text
	})
	if written != "" {
		return written + " " + message
	}
	return message
}

// fieldAt returns the field that a path leads to.
func fieldAt(message protoreflect.MessageDescriptor, path string) protoreflect.FieldDescriptor {
	var field protoreflect.FieldDescriptor
	for _, part := range parts(path) {
		if '0' <= part[0] && part[0] <= '9' {
			continue // an index: the list's field is the item's
		}
		if message == nil {
			return nil
		}
		if field = message.Fields().ByName(protoreflect.Name(part)); field == nil {
			return nil
		}
		message = field.Message()
	}
	return field
}

// inSeconds finds the durations in protovalidate's messages.
var inSeconds = regexp.MustCompile(`\b[0-9.]+s\b`)

// built is the validator as long as the garbage collector leaves it: compiling
// the rules is most of the time that reading a file takes, keeping them is
// most of the memory.
var built struct {
	sync.Mutex
	validator weak.Pointer[protovalidate.Validator]
}

func validator() (protovalidate.Validator, error) {
	built.Lock()
	defer built.Unlock()
	if v := built.validator.Value(); v != nil {
		return *v, nil
	}
	v, err := protovalidate.New(protovalidate.WithMessages(&configv1.Config{}))
	if err != nil {
		return nil, err
	}
	built.validator = weak.Make(&v)
	return v, nil
}
