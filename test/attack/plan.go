package main

import "time"

const (
	// attackTime is how long one attack lasts at most.
	attackTime = 8 * time.Second
	// floodFrames bounds the frames that a flood sends on one connection.
	floodFrames = 50_000_000
	// reconnects is how often a flood comes back after it was cut off, and
	// reconnectPause how long it waits before.
	reconnects     = 4
	reconnectPause = 500 * time.Millisecond
	// slowConnections is how many connections a slow attack holds at once.
	slowConnections = 50
)

// attack misbehaves on one connection.
type attack interface {
	// strike runs until the attack is through with the connection, an error of
	// the socket, or the end of p.ctx.
	strike(p *peer) error
}

// plan is how an attack is run and judged.
type plan struct {
	name, about string
	attack      attack
	// connections are held at once. Zero: 1.
	connections int
	// reconnects is how often each of them comes back after a cut-off.
	reconnects int
	// crowd says that the number of connections is the attack: what has to be
	// cut off, counted and logged is the peer, not each of them.
	crowd bool
}

func flood(name, about string, a attack) plan {
	return plan{name: name, about: about, attack: a, reconnects: reconnects}
}

func slow(name, about string, a attack) plan {
	return plan{name: name, about: about, attack: a, connections: slowConnections}
}

// attacks are all there are, in the order in which they run.
var attacks = []plan{
	flood("rapid-reset", "HEADERS and RST_STREAM, for ever new streams", rapidReset{}),
	flood("continuation-flood", "a header block that CONTINUATIONs of 1 KiB never end", continuationFlood{size: 1 << 10}),
	flood("continuation-tiny", "the same with CONTINUATIONs of 1 byte", continuationFlood{size: 1}),
	flood("continuation-empty", "the same with empty CONTINUATIONs", continuationFlood{}),
	flood("settings-flood", "SETTINGS, each of which wants an acknowledgement", settingsFlood{}),
	flood("settings-churn", "SETTINGS that move the windows of 100 open streams", settingsChurn{streams: 100}),
	flood("ping-flood", "PINGs, each of which wants an answer", pingFlood{}),
	flood("empty-data-flood", "DATA without bytes and without an end", emptyDataFlood{}),
	flood("padded-data-flood", "DATA of nothing but padding", emptyDataFlood{padding: 255}),
	flood("priority-flood", "PRIORITY frames that reorder a tree", priorityFlood{}),
	flood("window-update-flood", "WINDOW_UPDATEs of 1 byte on the connection", windowUpdateFlood{}),
	flood("window-update-stream", "WINDOW_UPDATEs of 1 byte on an open stream", windowUpdateFlood{onStream: true}),
	flood("window-update-closed", "WINDOW_UPDATEs of 1 byte on a stream that was reset", windowUpdateFlood{onStream: true, closed: true}),
	flood("header-bomb", "header blocks of 16,000 references to one entry of 4,000 bytes", headerBomb{}),

	slow("silence", "connections that say nothing", silence{}),
	slow("slow-preface", "the preface, a byte every half second", slowPreface{}),
	slow("slow-settings", "the preface, then SETTINGS, a byte every half second", slowSettings{}),
	slow("slow-headers", "HEADERS without an end, a CONTINUATION of a byte every half second", slowContinuations{}),
	slow("slow-headers-frame", "a HEADERS frame, a byte every half second", slowHeadersFrame{}),
	slow("slow-read", "100 answers of 1 MiB with windows wide open on a socket that is not read", slowRead{streams: 100}).on(1),
	slow("window-stall", "100 answers of 1 MiB with stream windows of 0 that never open", windowStall{streams: 100}).on(1),

	{name: "connection-flood", about: "10,000 connections from one peer", attack: greeting{}, connections: 10_000, crowd: true},
}

// on returns the plan with so many connections.
func (p plan) on(connections int) plan {
	p.connections = connections
	return p
}
