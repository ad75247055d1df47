package relay

import (
	"encoding/base64"
	"math/rand/v2"
	"net/url"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/outrigger-rpc/outrigger/policy"
)

// failure is how a call failed that is to be kept for later, as its caller is
// told should that fail too.
type failure struct {
	result  policy.Result
	message string          // what happened, for records; percent-encoded where an endpoint said it
	refusal *policy.Refusal // the agent's own; nil: an endpoint's answer
	// head and trailers are the endpoint's answer. Without a head the trailers
	// are all of it; without either it gave none that a gRPC client could read.
	head, trailers []hpack.HeaderField
}

// keepFailed begins to keep a call for later that failed, where its policy says
// so. It reports false where the failure is the caller's to see. c.mu is held.
func (c *call) keepFailed(b *batch, f failure) bool {
	if c.deferral != nil || c.answered || !c.known || !c.req.grpc || c.req.fromTask || !c.policy.Deferrable(b.now, f.result) {
		return false
	}
	kept := f // f itself must not escape: refusals are cheap in the storm that causes them
	c.deferral = &deferral{failed: &kept}
	for len(c.live) > 0 {
		a := c.live[0]
		c.policy.Settle(&a.policy, b.now, f.result, rand.Uint64())
		a.cut(b)
		c.forget(b, a, f.result, f.message)
		if a != c.main {
			a.discard()
		}
	}
	c.leaveCache(b)
	b.wake(c.policy.PostponeFailed(b.now, f.result, rand.Uint64()))
	if !c.main.keep && !c.main.pristine() {
		c.unkept(b, c.policy.Refuse(policy.RequestTooLarge, "", "the request was too long, or too much was held, for it to be kept"))
		return true
	}
	if why := c.cannotDefer(); why != nil {
		c.unkept(b, why)
		return true
	}
	last := c.main
	main := c.successor(last)
	main.endpoint = last.endpoint
	if queued := main.queued(); queued > main.repaid {
		b.owe(main.source, queued-main.repaid)
		main.repaid = queued
	}
	c.handOverWhole(b)
	c.rearm(b)
	return true
}

// queued returns how many bytes the leg has queued, sent or not.
func (l *leg) queued() int {
	if l.queue == nil {
		return 0
	}
	return len(l.queue.b)
}

// mayKeep reports whether the call may be kept for later should it fail.
func (c *call) mayKeep() bool { return c.policy.MayDefer() && !c.req.fromTask && c.deferral == nil }

// keepAnswered is keepFailed for an attempt's answer; fields are the block that
// tells of the failure.
func (c *call) keepAnswered(b *batch, a *attempt, res *response, fields []hpack.HeaderField) bool {
	if !c.mayKeep() {
		return false
	}
	f := failure{result: policy.Result{Code: c.codeOf(res)}, message: res.message}
	if !res.coded {
		f.message = percentEncode("the endpoint answered with HTTP status " + strconv.Itoa(c.status) + " and without a gRPC status")
		return c.keepFailed(b, f)
	}
	f.trailers = append(f.trailers, fields...)
	if a.head != nil {
		f.head = append(f.head, a.head.fields...)
	}
	return c.keepFailed(b, f)
}

// giveFailure answers a call that failed and could not be kept either: as it
// failed, with a word about that. c.mu is held.
func (c *call) giveFailure(b *batch, f *failure, why *policy.Refusal) {
	note := " (and the call was not kept for later: " + why.Error() + ")"
	if f.refusal != nil {
		refusal := *f.refusal
		refusal.Message += note
		c.refuse(b, &refusal)
		return
	}
	message := f.message + percentEncode(note)
	head, trailers := f.head, f.trailers
	if trailers == nil {
		trailers = []hpack.HeaderField{
			{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
			{Name: "grpc-status", Value: strconv.Itoa(int(f.result.Code))}}
	}
	trailers = withMessage(trailers, message)
	c.status, c.grpc, c.answered = 200, true, true
	c.dropSource()
	switch {
	case head != nil:
		if c.req.explain {
			head = append(head, c.explanation()...)
		}
		c.writeDown(b, head, false)
		c.down.sendTrailers(b, trailers)
	default:
		if c.req.explain {
			trailers = append(trailers, c.explanation()...)
		}
		c.writeDown(b, trailers, true)
	}
	c.end(b, f.result, message)
}

// withMessage replaces the status message, which is percent-encoded, in a list
// of trailers: in the details too, which clients read first.
func withMessage(trailers []hpack.HeaderField, message string) []hpack.HeaderField {
	out := make([]hpack.HeaderField, 0, len(trailers)+1)
	for _, f := range trailers {
		switch f.Name {
		case "grpc-message":
			continue
		case "grpc-status-details-bin":
			f.Value = detailsWithMessage(f.Value, message)
		}
		out = append(out, f)
	}
	return append(out, hpack.HeaderField{Name: "grpc-message", Value: message, Sensitive: true})
}

// detailsWithMessage replaces the message in a google.rpc.Status: of a field
// that comes twice the last one counts. What is not one stays as it is.
func detailsWithMessage(details, message string) string {
	const messageField = 2
	raw, err := base64.RawStdEncoding.DecodeString(details)
	if err != nil {
		if raw, err = base64.StdEncoding.DecodeString(details); err != nil {
			return details
		}
	}
	plain, err := url.PathUnescape(message)
	if err != nil {
		plain = message
	}
	raw = protowire.AppendTag(raw, messageField, protowire.BytesType)
	return base64.RawStdEncoding.EncodeToString(protowire.AppendString(raw, plain))
}
