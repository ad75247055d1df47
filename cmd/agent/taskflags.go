package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// workFlags are submit's flags that say what is to be done, by what they are for. An
// app's kind is "".
var workFlags = map[string][]string{
	"grpc":  {"data", "service", "method", "header"},
	"http":  {"data", "method", "url", "header", "sign-with"},
	"email": {"from", "to", "subject", "text", "template", "json", "attach"},
	"":      {"data"},
}

// whenFlags are those that say when and how often, which a file says itself.
var whenFlags = []string{"queue", "priority", "delay", "run-at", "deadline", "attempts", "timeout", "tenant", "tag", "unique", "per", "cron", "time-zone"}

// misplaced refuses flags, of those that were given, that would be ignored: another
// kind's, or beside a file what it says itself.
func misplaced(file bool, kind string, given func(flag string) bool) error {
	if file {
		for _, flag := range append(slices.Clone(whenFlags), slices.Concat(slices.Collect(maps.Values(workFlags))...)...) {
			if flag != "data" && given(flag) {
				return fmt.Errorf("--%s: with --file it stands in the file; want only --data, --key, --caller-runs and --wait beside it", flag)
			}
		}
		return nil
	}
	own, known := workFlags[kind]
	if !known {
		own = workFlags[""]
	}
	for _, flags := range workFlags {
		for _, flag := range flags {
			if given(flag) && !slices.Contains(own, flag) && kind != "chain" {
				return fmt.Errorf("--%s: %s tasks have none; it is for %s", flag, kind, strings.Join(kindsOf(flag), " and "))
			}
		}
	}
	return nil
}

// kindsOf returns the kinds that a flag is for.
func kindsOf(flag string) (kinds []string) {
	for kind, flags := range workFlags {
		if slices.Contains(flags, flag) {
			if kind == "" {
				kind = "an app's kinds"
			}
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	return kinds
}

// fill puts data into the task of a file: it is what a chain's expressions see as
// input, and what the task is about otherwise.
func fill(task *outriggerv1.TaskSpec, data []byte) error {
	switch work := task.GetWork().(type) {
	case *outriggerv1.TaskSpec_Chain:
		work.Chain.Input = &outriggerv1.Payload{Data: data, ContentType: work.Chain.GetInput().GetContentType()}
	case *outriggerv1.TaskSpec_App:
		work.App.Payload = &outriggerv1.Payload{Data: data, ContentType: work.App.GetPayload().GetContentType()}
	case *outriggerv1.TaskSpec_Grpc:
		work.Grpc.Message = data
	case *outriggerv1.TaskSpec_Http:
		work.Http.Body = data
	default:
		return errors.New("--data: the file's task is an e-mail, which has none; want its text or template in the file")
	}
	return nil
}
