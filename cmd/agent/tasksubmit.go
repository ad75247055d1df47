package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"buf.build/go/protoyaml"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// maxTaskFile bounds what a task is read from.
const maxTaskFile = 64 << 20

// submission is what the flags of submit say.
type submission struct {
	file                                       string
	service, method, url, subject, text        string
	from, data, dataJSON, template, signWith   string
	to, headers, tags, attach                  []string
	queue, tenant, key, unique, cron, timeZone string
	priority, attempts                         uint32
	delay, timeout, per                        time.Duration
	runAt, deadline                            string
	callerRuns, wait                           bool
}

func newTaskSubmit() *cobra.Command {
	var r remote
	var s submission
	c := r.flags(&cobra.Command{
		Use:   "submit KIND | --file FILE",
		Short: "Have something done later: grpc, http, email, or a kind that an app works",
		Long: `Have something done later, surely and at least once: a gRPC call, an HTTP
request, an e-mail, or work of a kind that an app's workers do. Chains and what
flags can't say come from a file: a SubmitTaskRequest as YAML or JSON, where bytes
are base64. --data and --key take the place of what the file has.`,
		Example: `  outrigger task submit http --url https://example.com/hook --data '{"order": 7}' --sign-with shop
  outrigger task submit grpc --service greeter --method /helloworld.Greeter/SayHello --data @request.bin --delay 10m
  outrigger task submit email --to ada@example.com --template welcome --json '{"name": "Ada"}' --wait
  outrigger task submit resize-image --data '{"id": 7}' --key image-7
  outrigger task submit --file chain.yaml --data '{"name": "Ada"}' --key signup-7`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			request, err := s.request(args, c.Flags().Changed, c.InOrStdin())
			if err != nil {
				return usageError{err}
			}
			return r.submit(c, request, s.wait)
		},
	})
	f := c.Flags()
	f.StringVarP(&s.file, "file", "f", "", "read a SubmitTaskRequest from `FILE`, YAML or JSON; - is the standard input")
	f.StringVarP(&s.data, "data", "d", "", "grpc: the request message; http: the body; an app's kind: the payload; a chain: its input. `TEXT`, @FILE, or base64:TEXT")
	f.StringVar(&s.service, "service", "", "grpc: the `SERVICE`, or an authority")
	f.StringVar(&s.method, "method", "", "grpc: the `METHOD`, /package.Service/Method; http: POST unless it says so")
	f.StringVar(&s.url, "url", "", "http: the `URL`")
	f.StringArrayVarP(&s.headers, "header", "H", nil, "grpc, http: metadata or a header, `NAME:VALUE`; repeat it for more")
	f.StringVar(&s.signWith, "sign-with", "", "http: sign with this `SECRET` of tasks.webhook_secrets")
	f.StringVar(&s.from, "from", "", "email: the sender `ADDRESS`")
	f.StringArrayVar(&s.to, "to", nil, "email: a recipient's `ADDRESS`; repeat it for more")
	f.StringVar(&s.subject, "subject", "", "email: the subject")
	f.StringVar(&s.text, "text", "", "email: the body")
	f.StringVar(&s.template, "template", "", "email: a template's `NAME`, instead of subject and body")
	f.StringVar(&s.dataJSON, "json", "", "email: what the template is filled with, `JSON`")
	f.StringArrayVar(&s.attach, "attach", nil, "email: attach `FILE`; repeat it for more")
	f.StringVar(&s.queue, "queue", "", "the `QUEUE`; default is default")
	f.Uint32Var(&s.priority, "priority", 0, "1 (first) to 4 (last); default 2")
	f.DurationVar(&s.delay, "delay", 0, "not before so long from now")
	f.StringVar(&s.runAt, "run-at", "", "not before `TIME`, RFC 3339 such as 2026-11-30T08:00:00+01:00")
	f.StringVar(&s.deadline, "deadline", "", "given up if not done by `TIME`, RFC 3339")
	f.Uint32Var(&s.attempts, "attempts", 0, "try it at most `N` times; default: its kind's")
	f.DurationVar(&s.timeout, "timeout", 0, "how long one attempt may take; default: its kind's")
	f.StringVar(&s.tenant, "tenant", "", "tasks of one `TENANT` don't hold up another's")
	f.StringArrayVar(&s.tags, "tag", nil, "a `TAG` to list it by; repeat it for more")
	f.StringVar(&s.key, "key", "", "idempotency `KEY`: the same key and content is the same task")
	f.StringVar(&s.unique, "unique", "", "`KEY` that no second task may have before this one ended, or with --per within it")
	f.DurationVar(&s.per, "per", 0, "with --unique: one for each of these periods")
	f.StringVar(&s.cron, "cron", "", "a schedule instead: one task at each of these times, such as \"0 8 * * 1-5\"")
	f.StringVar(&s.timeZone, "time-zone", "", "with --cron: IANA `NAME`, such as Europe/Berlin; default UTC")
	f.BoolVar(&s.callerRuns, "caller-runs", false, "where the queue is full: run it now instead of refusing it")
	f.BoolVar(&s.wait, "wait", false, "wait until it has ended, and fail where it failed")
	return c
}

// request makes a message of what was said; given tells which flags were.
func (s *submission) request(args []string, given func(flag string) bool, stdin io.Reader) (*outriggerv1.SubmitTaskRequest, error) {
	if s.file != "" {
		if len(args) > 0 {
			return nil, fmt.Errorf("got --file and %q; the file says the kind", args[0])
		}
		if err := misplaced(true, "", given); err != nil {
			return nil, err
		}
		return s.fromFile(given, stdin)
	}
	if len(args) == 0 {
		return nil, errors.New("what is to be done? Want grpc, http, email or a kind of tasks.kinds, or --file FILE")
	}
	if err := misplaced(false, args[0], given); err != nil {
		return nil, err
	}
	spec := &outriggerv1.TaskSpec{Queue: s.queue, Priority: s.priority, Tenant: s.tenant, Tags: s.tags}
	if err := s.work(spec, args[0]); err != nil {
		return nil, err
	}
	var err error
	if spec.RunAt, err = instant("--run-at", s.runAt); err != nil {
		return nil, err
	}
	if spec.Deadline, err = instant("--deadline", s.deadline); err != nil {
		return nil, err
	}
	if s.delay != 0 {
		spec.Delay = durationpb.New(s.delay)
	}
	if s.timeout != 0 {
		spec.Timeout = durationpb.New(s.timeout)
	}
	if s.attempts > 0 {
		spec.Retry = &outriggerv1.TaskRetry{MaxAttempts: s.attempts}
	}
	if s.unique != "" {
		spec.Unique = &outriggerv1.UniqueTask{Key: s.unique}
		if s.per > 0 {
			spec.Unique.Period = durationpb.New(s.per)
		}
	} else if s.per > 0 {
		return nil, errors.New("--per wants --unique beside it")
	}
	if s.cron != "" {
		spec.Schedule = &outriggerv1.TaskSchedule{Cron: s.cron, TimeZone: s.timeZone}
	} else if s.timeZone != "" {
		return nil, errors.New("--time-zone wants --cron beside it")
	}
	request := &outriggerv1.SubmitTaskRequest{Task: spec, IdempotencyKey: s.key}
	if s.callerRuns {
		request.WhenFull = outriggerv1.SubmitTaskRequest_CALLER_RUNS
	}
	return request, nil
}

// fromFile reads a file, and puts in what flags say beside it.
func (s *submission) fromFile(given func(flag string) bool, stdin io.Reader) (*outriggerv1.SubmitTaskRequest, error) {
	request, err := readSubmission(s.file, stdin)
	if err != nil {
		return nil, err
	}
	if given("data") {
		data, err := bytesOf(s.data)
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		if err := fill(request.GetTask(), data); err != nil {
			return nil, err
		}
	}
	if s.key != "" {
		request.IdempotencyKey = s.key
	}
	if s.callerRuns {
		request.WhenFull = outriggerv1.SubmitTaskRequest_CALLER_RUNS
	}
	return request, nil
}

// work sets what is to be done.
func (s *submission) work(spec *outriggerv1.TaskSpec, kind string) error {
	data, err := bytesOf(s.data)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	var headers []*outriggerv1.TaskHeader
	for _, h := range s.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("--header %q: want NAME:VALUE", h)
		}
		headers = append(headers, &outriggerv1.TaskHeader{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
	}
	switch kind {
	case "grpc":
		spec.Work = &outriggerv1.TaskSpec_Grpc{Grpc: &outriggerv1.GrpcWork{Service: s.service, Method: s.method, Message: data, Metadata: headers}}
	case "http":
		spec.Work = &outriggerv1.TaskSpec_Http{Http: &outriggerv1.HttpWork{Method: s.method, Url: s.url, Headers: headers, Body: data, SignWith: s.signWith}}
	case "email":
		mail := &outriggerv1.EmailWork{From: s.from, To: s.to, Subject: s.subject, Text: s.text}
		if s.template != "" {
			mail.Template = &outriggerv1.EmailTemplate{Name: s.template, DataJson: s.dataJSON}
		} else if s.dataJSON != "" {
			return errors.New("--json is for --template")
		}
		for _, path := range s.attach {
			content, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("--attach: %w", err)
			}
			mail.Attachments = append(mail.Attachments, &outriggerv1.EmailAttachment{Name: filepath.Base(path), Content: content})
		}
		spec.Work = &outriggerv1.TaskSpec_Email{Email: mail}
	case "chain":
		return errors.New("a chain's steps don't fit into flags; want --file FILE")
	default:
		spec.Work = &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: kind, Payload: &outriggerv1.Payload{Data: data}}}
	}
	return nil
}

// bytesOf reads a value: text, @FILE, or base64:TEXT.
func bytesOf(value string) ([]byte, error) {
	if path, ok := strings.CutPrefix(value, "@"); ok {
		return os.ReadFile(path)
	}
	if text, ok := strings.CutPrefix(value, "base64:"); ok {
		return base64.StdEncoding.DecodeString(text)
	}
	return []byte(value), nil
}

// instant reads a time; nil for none.
func instant(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("%s %q: want a time such as 2026-11-30T08:00:00+01:00", flag, text)
	}
	return timestamppb.New(at), nil
}

// readSubmission reads a SubmitTaskRequest; JSON is YAML too.
func readSubmission(path string, stdin io.Reader) (*outriggerv1.SubmitTaskRequest, error) {
	from := stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer file.Close()
		from = file
	}
	text, err := io.ReadAll(io.LimitReader(from, maxTaskFile+1))
	if err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	if len(text) > maxTaskFile {
		return nil, fmt.Errorf("--file: %s has more than %d MiB", path, maxTaskFile>>20)
	}
	request := &outriggerv1.SubmitTaskRequest{}
	if err := (protoyaml.UnmarshalOptions{Path: path}).Unmarshal(text, request); err != nil {
		return nil, fmt.Errorf("--file: %w", err)
	}
	if proto.Equal(request, &outriggerv1.SubmitTaskRequest{}) {
		return nil, fmt.Errorf("--file: %s says nothing; want a SubmitTaskRequest, such as {task: {http: {url: \"https://example.com\"}}}", path)
	}
	return request, nil
}

// submit hands the task over, and waits for its end where that was asked for.
func (r *remote) submit(c *cobra.Command, request *outriggerv1.SubmitTaskRequest, wait bool) error {
	var id string
	var ended bool
	do := r.call
	if request.GetWhenFull() == outriggerv1.SubmitTaskRequest_CALLER_RUNS {
		do = func(c *cobra.Command, submit func(context.Context, *grpc.ClientConn) error) error {
			return r.connect(c.Context(), submit) // it may take as long as the task does
		}
	}
	err := do(c, func(ctx context.Context, agent *grpc.ClientConn) error {
		answer, err := outriggerv1.NewTaskServiceClient(agent).SubmitTask(ctx, request)
		if err != nil {
			return err
		}
		id, ended = answer.GetTask().GetId(), answer.GetCallerRan()
		switch {
		case wait && !ended:
			return nil
		case r.output == outputJSON:
			return printMessage(c.OutOrStdout(), answer)
		case answer.GetCallerRan():
			fmt.Fprintf(c.OutOrStdout(), "the queue is full, so it was run at once: %s\n", answer.GetTask().GetState())
			return r.printTask(c, answer)
		case answer.GetExisted():
			fmt.Fprintln(c.ErrOrStderr(), "it was there already:")
		}
		fmt.Fprintln(c.OutOrStdout(), id)
		return nil
	})
	if err != nil || !wait || ended {
		return err
	}
	return r.connect(c.Context(), func(ctx context.Context, agent *grpc.ClientConn) error {
		answer, err := outriggerv1.NewTaskServiceClient(agent).WaitTask(ctx, &outriggerv1.WaitTaskRequest{Id: id})
		if err != nil {
			return err
		}
		if err := r.printTask(c, answer); err != nil {
			return err
		}
		if answer.GetTask().GetState() != outriggerv1.TaskState_COMPLETED {
			return errSaid
		}
		return nil
	})
}
