package guard

import (
	"sync"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// kind is what an operation does.
type kind uint8

const (
	acquire kind = iota
	report
	renewal
)

// operation is one of a batch: the message that is sent, and where its answer
// comes. It is used again once nobody can know it any more: after its answer,
// or after it was sent where it has none.
type operation struct {
	kind      kind
	abandoned bool   // nobody waits for the answer
	tag       uint64 // 0: no answer comes

	acquire outriggerv1.GuardAcquire
	request outriggerv1.AcquireRequest
	report  outriggerv1.GuardReport
	outcome outriggerv1.ReportRequest
	renewal outriggerv1.GuardRenewal

	// answered gets the answer, or nil when the stream broke.
	answered chan *outriggerv1.GuardAnswer
}

var operations = sync.Pool{New: func() any {
	op := &operation{answered: make(chan *outriggerv1.GuardAnswer, 1)}
	op.acquire.Request, op.report.Request = &op.request, &op.outcome
	return op
}}

func newOperation(k kind) *operation {
	op := operations.Get().(*operation)
	op.kind, op.abandoned, op.tag = k, false, 0
	return op
}

func (op *operation) free() { operations.Put(op) }

// setTag gives the operation its number.
func (op *operation) setTag(tag uint64) {
	op.tag, op.acquire.Tag, op.report.Tag, op.renewal.Tag = tag, tag, tag, tag
}

// size is about what the operation takes on the wire, and not less.
func (op *operation) size() int {
	n := 136 // tag, id, durations, a load report and lengths
	if op.kind == acquire {
		n += len(op.request.GetService()) + len(op.request.GetMethod())
		for k, v := range op.request.GetMetadata() {
			n += len(k) + len(v) + 12
		}
	}
	return n
}

// The agent takes 1024 operations and 64 KiB a message.
const (
	maxOperations = 512
	maxBytes      = 60 << 10
)

// batch is the message that operations are gathered in.
type batch struct {
	message outriggerv1.GuardRequest
	bytes   int
}

// fits reports whether the operation may be added.
func (b *batch) fits(op *operation) bool {
	return b.operations() == 0 || b.operations() < maxOperations && b.bytes+op.size() <= maxBytes
}

func (b *batch) operations() int {
	m := &b.message
	return len(m.GetReports()) + len(m.GetRenewals()) + len(m.GetAcquires()) + len(m.GetCancels())
}

func (b *batch) add(op *operation) {
	b.bytes += op.size()
	m := &b.message
	switch op.kind {
	case acquire:
		m.Acquires = append(m.Acquires, &op.acquire)
	case report:
		m.Reports = append(m.Reports, &op.report)
	case renewal:
		m.Renewals = append(m.Renewals, &op.renewal)
	}
}

func (b *batch) reset() {
	m := &b.message
	clear(m.Acquires)
	clear(m.Reports)
	clear(m.Renewals)
	m.Acquires, m.Reports, m.Renewals, m.Cancels = m.Acquires[:0], m.Reports[:0], m.Renewals[:0], m.Cancels[:0]
	b.bytes = 0
}
