package relay

import "github.com/outrigger-rpc/outrigger/policy"

// record tells the observer and the trace. c.mu is held.
func (c *call) record(b *batch, r policy.Result, message, endpoint string) {
	observer := c.relay.observer
	if observer == nil && c.trace == nil {
		return
	}
	record := &b.record
	*record = policy.Record{
		Method: c.req.path, Endpoint: endpoint, Authority: c.req.authority, Peer: c.down.conn.peer,
		Code: r.Code, Reason: r.Reason, Message: message,
		Start: b.now, End: b.now,
		RequestBytes: c.bytesUp, ResponseBytes: c.bytesDown,
		RequestMessages: c.requests.whole, ResponseMessages: c.responses.whole,
	}
	if c.known {
		m := c.policy.Method()
		record.Service, record.Method = m.Service().Name(), m.Name()
		record.Start, record.Attempts = c.policy.Start(), c.policy.Attempts()
	}
	if c.deferral != nil {
		record.TaskID = c.deferral.task
	}
	if c.trace != nil {
		record.TraceID = c.trace.TraceID()
		c.trace.End(b.now, record)
		c.trace = nil
	}
	if observer != nil {
		observer.CallEnded(record)
	}
	*record = policy.Record{}
}
