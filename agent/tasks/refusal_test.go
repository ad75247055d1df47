package tasks

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

func TestErrorsOfTheStoreAreStatuses(t *testing.T) {
	late := &store.Unavailable{Why: "the task store did not answer in time"}
	for _, row := range []struct {
		name   string
		err    error
		code   codes.Code
		reason string
		says   string
	}{
		{"down", &store.Unavailable{Why: "the disk is full"}, codes.Unavailable, ReasonStore, "nothing was accepted: the disk is full"},
		{"down within", fmt.Errorf("a step: %w", late), codes.Unavailable, ReasonStore, "did not answer in time"},
		{"down over its own deadline", fmt.Errorf("%w: %w", late, context.DeadlineExceeded), codes.Unavailable, ReasonStore, "nothing was accepted"},
		{"lost in mid-commit", &store.Unavailable{Why: "the connection was lost", Unknown: true}, codes.Unavailable, ReasonStore, "may be done"},
		{"the caller's deadline", context.DeadlineExceeded, codes.DeadlineExceeded, "", ""},
		{"the caller went away", context.Canceled, codes.Canceled, "", ""},
		{"not there", store.ErrNotFound, codes.NotFound, "", "no such task"},
		{"lost", store.ErrLost, codes.Aborted, "", "the lease is over"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := asStatus(row.err)

			if r := refusalOf(err); status.Code(err) != row.code || r.GetReason() != row.reason || !strings.Contains(r.GetMessage(), row.says) {
				t.Errorf("%v of reason %q: %s; want %v, %q, %q", status.Code(err), r.GetReason(), r.GetMessage(), row.code, row.reason, row.says)
			}
			if row.name == "lost in mid-commit" && strings.Contains(err.Error(), "nothing was accepted") {
				t.Errorf("%v: nobody knows that", err)
			}
		})
	}
}
