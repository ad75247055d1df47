package config

import (
	"time"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// Limits bound what clients can make the agent hold or do. Zero values: the
// data plane's defaults.
type Limits struct {
	Connections, ConnectionsPerPeer, StreamsPerConnection     int
	HeaderListBytes, StreamWindowBytes, ConnectionWindowBytes int
	BufferedBytes                                             int64
	ReplayBytes                                               int
	PrefaceTimeout, HeaderTimeout                             time.Duration
	ControlFrames, ControlFramesPerSecond                     int
	Resets, ResetsPerSecond                                   int
	StalledBytes                                              int
	StallTimeout                                              time.Duration
	UpstreamConnections, WaitingCalls                         int
}

func resolveLimits(m *configv1.Limits) Limits {
	return Limits{
		Connections: int(m.GetConnections()), ConnectionsPerPeer: int(m.GetConnectionsPerPeer()), StreamsPerConnection: int(m.GetStreamsPerConnection()),
		HeaderListBytes: int(m.GetHeaderListBytes()), StreamWindowBytes: int(m.GetStreamWindowBytes()), ConnectionWindowBytes: int(m.GetConnectionWindowBytes()),
		BufferedBytes: int64(m.GetBufferedBytes()), ReplayBytes: int(m.GetReplayBytes()),
		PrefaceTimeout: duration(m.GetPrefaceTimeout(), 0), HeaderTimeout: duration(m.GetHeaderTimeout(), 0),
		ControlFrames: int(m.GetControlFrames().GetBurst()), ControlFramesPerSecond: int(m.GetControlFrames().GetPerSecond()),
		Resets: int(m.GetResets().GetBurst()), ResetsPerSecond: int(m.GetResets().GetPerSecond()),
		StalledBytes: int(m.GetStalled().GetBytes()), StallTimeout: duration(m.GetStalled().GetTimeout(), 0),
		UpstreamConnections: int(m.GetUpstreamConnections()), WaitingCalls: int(m.GetWaitingCalls()),
	}
}
