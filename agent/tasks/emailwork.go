package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/outrigger-rpc/outrigger/agent/tasks/email"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// errNoEmail is for an agent that sends no mail.
var errNoEmail = refuse(codes.FailedPrecondition, "e-mails can't be sent: the configuration has no tasks.email block")

func (s *Settings) checkEmail(w *outriggerv1.EmailWork, later filled) error {
	if s.Email == nil {
		return errNoEmail
	}
	if later.later("email") {
		return nil // judged once it is whole
	}
	m, problem := s.message(w)
	if problem != nil {
		return problem.within("email")
	}
	for _, p := range s.Email.Validate(m) {
		return (&FieldError{p.Field, p.Description}).within("email")
	}
	return nil
}

// message returns a mail whose subject and bodies are made.
func (s *Settings) message(w *outriggerv1.EmailWork) (email.Message, *FieldError) {
	m := email.Message{
		From: w.GetFrom(), ReplyTo: w.GetReplyTo(), To: w.GetTo(), Cc: w.GetCc(), Bcc: w.GetBcc(),
		Subject: w.GetSubject(), Text: w.GetText(), HTML: w.GetHtml(),
	}
	for _, a := range w.GetAttachments() {
		m.Attachments = append(m.Attachments, email.Attachment{Name: a.GetName(), ContentType: a.GetContentType(), Content: a.GetContent()})
	}
	t := w.GetTemplate()
	if t == nil {
		return m, nil
	}
	if m.Subject != "" || m.Text != "" || m.HTML != "" {
		return m, &FieldError{"template", "is given together with subject, text or html; want them from one of the two"}
	}
	made, problem := s.render(t)
	if problem != nil {
		return m, problem.within("template")
	}
	m.Subject, m.Text, m.HTML = made.Subject, made.Text, made.HTML
	return m, nil
}

func (s *Settings) render(t *outriggerv1.EmailTemplate) (email.Rendered, *FieldError) {
	var template *email.Template
	var err error
	inline := t.GetSubject() != "" || t.GetText() != "" || t.GetHtml() != ""
	switch {
	case t.GetName() != "" && inline:
		return email.Rendered{}, &FieldError{"name", "is given together with subject, text or html; want one template"}
	case inline:
		if template, err = email.Inline(t.GetSubject(), t.GetText(), t.GetHtml()); err != nil {
			return email.Rendered{}, &FieldError{"", err.Error()}
		}
	default:
		templates := s.Templates
		if templates == nil {
			templates = &email.Templates{}
		}
		if template, err = templates.Get(t.GetName()); err != nil {
			return email.Rendered{}, &FieldError{"name", err.Error()}
		}
	}
	text := t.GetDataJson()
	if text == "" {
		text = "{}"
	}
	data, err := email.Data([]byte(text))
	if err != nil {
		return email.Rendered{}, &FieldError{"data_json", err.Error()}
	}
	made, err := template.Render(data)
	if err != nil {
		return email.Rendered{}, &FieldError{"data_json", err.Error()}
	}
	return made, nil
}

// mailed is what an attempt leaves to the next: some recipients have the mail.
type mailed struct {
	// Only are those that the server refused for now, Refused is why it took others
	// not at all.
	Only, Refused []string
}

// doEmail sends a mail. Where the server refuses some recipients for now, the next
// attempt is for them alone.
func (e *Executor) doEmail(ctx context.Context, j *store.Job, w *outriggerv1.EmailWork) (*outriggerv1.TaskResult, *failure) {
	s := e.settings.Load()
	if s.Email == nil {
		return nil, &failure{why: "the configuration has no tasks.email block any more"}
	}
	m, problem := s.message(w)
	if problem != nil {
		return nil, &failure{why: short(problem.Error()), permanent: true}
	}
	before, err := e.mailedBefore(s, j)
	if err != nil {
		return nil, &failure{why: err.Error(), permanent: true}
	}
	m.MessageID, m.Date, m.Only = s.Email.MessageID(FormatID(j.ID)), j.SubmittedAt, before.Only
	receipt, err := s.Email.Send(ctx, m)
	if err != nil {
		f := emailFailure(err)
		return nil, &f
	}
	refused := before.Refused
	for _, r := range receipt.Refused {
		if r.Permanent {
			refused = append(refused, short(r.String()))
		}
	}
	if left := receipt.Deferred(); len(left) > 0 {
		return nil, e.mailLeft(s, j, receipt, mailed{left, refused})
	}
	return &outriggerv1.TaskResult{MessageId: receipt.MessageID, Refused: refused}, nil
}

func (e *Executor) mailedBefore(s *Settings, j *store.Job) (m mailed, err error) {
	b, err := opened(s, j.ID, partProgress, j.Progress)
	if err != nil || len(b) == 0 {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

// mailLeft is the failure of a mail that some recipients don't have yet.
func (e *Executor) mailLeft(s *Settings, j *store.Job, receipt email.Receipt, left mailed) *failure {
	var why []string
	for _, r := range receipt.Refused {
		if !r.Permanent {
			why = append(why, r.String())
		}
	}
	f := &failure{why: short("refused for now, while others got the mail: " + strings.Join(why, "; "))}
	b, err := json.Marshal(left)
	if err == nil {
		f.progress, err = sealed(s, j.ID, partProgress, b)
	}
	if err != nil { // the others would get it twice
		f.permanent, f.why = true, short(f.why+"; who got it can't be kept: "+err.Error())
	}
	return f
}

// emailFailure sorts why a mail was not sent.
func emailFailure(err error) failure {
	f := failure{why: short(err.Error()), permanent: email.IsPermanent(err)}
	f.snooze = errors.Is(err, email.ErrClosed) // a reload replaced the sender under it
	var of *email.Error
	if errors.As(err, &of) {
		f.after = of.RetryAfter
	}
	return f
}
