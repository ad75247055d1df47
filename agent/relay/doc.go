// Package relay is the data plane: it forwards HTTP/2 frames between an app's
// connection and the connections to endpoints.
//
//	app ──▶ downstream conn ─▶ Table ─▶ policy.Call ─▶ upstream ─▶ upstream conn ──▶ endpoint
//	              └──────── call: a down leg and an up leg ────────┘
//
// # Who runs what
//
// Each connection has one reader goroutine. It parses frames in place and
// appends what they cause to the output of the peer connection, then writes
// each peer once when its read buffer is drained (a batch). A write never
// blocks: what the kernel does not take is left to a writer goroutine of that
// connection, which lives only as long as the socket is full. Calls have no
// goroutine, no channel, no context and no runtime timer; their deadlines sit
// in one timer wheel.
//
// # Locks
//
// A call's mutex guards its life, a connection's mutex its output: streams,
// windows, header compression, queued bytes. Order: call, then connection.
// Two connections' mutexes are never held together, nor one across a system
// call; credit that a connection owes to its peer is noted in the batch and
// given after the unlock.
//
// # Flow control
//
// A sender gets credit for its stream back only as its bytes are moved to the
// other side's output, which takes no more than that peer's windows and a high
// water mark allow. So a stream that stalls holds at most its own window
// (StreamWindow), and since the credit of the connection is given back on
// receipt, it stalls nobody else. All bytes held this way are counted; past
// Limits.BufferedBytes connections get no new credit until some are taken.
package relay
