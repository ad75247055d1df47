package tasks

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

const defaultPageSize = 100

// tokenMark begins what a page token holds, as in the API's other lists.
const tokenMark = "after:"

// GetTask shows a task.
func (e *Executor) GetTask(ctx context.Context, r *outriggerv1.GetTaskRequest) (*outriggerv1.GetTaskResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	id, err := ParseID(r.GetId())
	if err != nil {
		return nil, badID("id", r.GetId())
	}
	j, err := kept.Get(ctx, id)
	if err != nil {
		return nil, asStatus(err)
	}
	t, err := e.showWhole(&j, r.GetShowPayload())
	if err != nil {
		return nil, asStatus(err)
	}
	return &outriggerv1.GetTaskResponse{Task: t}, nil
}

// ListTasks shows a page of tasks, the newest first.
func (e *Executor) ListTasks(ctx context.Context, r *outriggerv1.ListTasksRequest) (*outriggerv1.ListTasksResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	size := int(r.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	f := store.Filter{Kind: r.GetKind(), Queue: r.GetQueue(), Tag: r.GetTag(), Limit: size + 1, Payload: r.GetShowPayload()}
	for s, named := range states {
		for _, asked := range r.GetStates() {
			if named == asked {
				f.States = append(f.States, s)
			}
		}
	}
	if parent := r.GetParent(); parent != "" {
		if f.Parent, err = ParseID(parent); err != nil {
			return nil, badID("parent", parent)
		}
	}
	if token := r.GetPageToken(); token != "" {
		if f.After, err = parseToken(token); err != nil {
			return nil, invalid(&FieldError{"page_token", "it is not one that this API gave; use the next_page_token of the page before, or none"})
		}
	}
	jobs, err := kept.List(ctx, f)
	if err != nil {
		return nil, asStatus(err)
	}
	out := &outriggerv1.ListTasksResponse{}
	if len(jobs) > size {
		jobs = jobs[:size]
		out.NextPageToken = formatToken(jobs[size-1].ID)
	}
	for i := range jobs {
		t := e.show(&jobs[i])
		if r.GetShowPayload() {
			if err := e.showPayload(&jobs[i], t); err != nil {
				return nil, asStatus(err)
			}
		}
		out.Tasks = append(out.Tasks, t)
	}
	return out, nil
}

func formatToken(last int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(tokenMark + FormatID(last)))
}

func parseToken(token string) (int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	text, ours := strings.CutPrefix(string(b), tokenMark)
	if err != nil || !ours {
		return 0, errID
	}
	return ParseID(text)
}
