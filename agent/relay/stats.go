package relay

import "sync/atomic"

// counters are the relay's own running totals.
type counters struct {
	accepted          atomic.Uint64
	strangers         atomic.Uint64
	connectFailures   atomic.Uint64
	cutOffs           [numCutOffs]atomic.Uint64
	handshakeFailures atomic.Uint64
	silentDeaths      atomic.Uint64
	bytesUp           atomic.Uint64
	bytesDown         atomic.Uint64
	protocolErrors    [len(errCodeNames)]atomic.Uint64
}

// Stats is a reading of the relay. Totals only grow.
type Stats struct {
	// DownstreamConnections and UpstreamConnections are open now.
	DownstreamConnections, UpstreamConnections int
	// ActiveCalls are in flight now.
	ActiveCalls int
	// BufferedBytes of requests and answers are held now: what waits for
	// credit, and what may have to be sent again.
	BufferedBytes int64
	// CallsTotal arrived so far, AcceptedTotal connections were accepted.
	CallsTotal, AcceptedTotal uint64
	// BytesUp and BytesDown are the DATA of requests and answers of calls that
	// ended.
	BytesUp, BytesDown uint64
	// NotHTTP2Total connections spoke something that nobody here knows.
	NotHTTP2Total uint64
	// HandshakeFailuresTotal TLS handshakes with clients failed.
	HandshakeFailuresTotal uint64
	// SilentDeathsTotal connections to endpoints were given up because they
	// did not even answer a PING.
	SilentDeathsTotal uint64
	// ConnectFailuresTotal connects to endpoints failed.
	ConnectFailuresTotal uint64
	// CutOffsTotal counts connections that were cut off or turned away, by
	// what for; those that never occurred are left out.
	CutOffsTotal map[string]uint64
	// ProtocolErrorsTotal counts connections that ended because the peer
	// broke HTTP/2, by error code name; those that never occurred are left out.
	ProtocolErrorsTotal map[string]uint64
}

// Stats reads the relay's figures.
func (r *Relay) Stats() Stats {
	s := Stats{
		ActiveCalls: int(r.active.Load()), BufferedBytes: r.buffered.Load(),
		CallsTotal: r.calls.Load(), AcceptedTotal: r.stats.accepted.Load(),
		NotHTTP2Total: r.stats.strangers.Load(),
		BytesUp:       r.stats.bytesUp.Load(), BytesDown: r.stats.bytesDown.Load(),
		ConnectFailuresTotal: r.stats.connectFailures.Load(), HandshakeFailuresTotal: r.stats.handshakeFailures.Load(), SilentDeathsTotal: r.stats.silentDeaths.Load(),
		ProtocolErrorsTotal: make(map[string]uint64), CutOffsTotal: make(map[string]uint64),
	}
	r.mu.Lock()
	s.DownstreamConnections = len(r.downs)
	r.mu.Unlock()
	r.upstreams.Range(func(_, u any) bool {
		s.UpstreamConnections += len(u.(*upstream).all())
		return true
	})
	for cut := range r.stats.cutOffs {
		if n := r.stats.cutOffs[cut].Load(); n > 0 {
			s.CutOffsTotal[cutOff(cut).String()] = n
		}
	}
	for code := range r.stats.protocolErrors {
		if n := r.stats.protocolErrors[code].Load(); n > 0 {
			s.ProtocolErrorsTotal[errCode(code).String()] = n
		}
	}
	return s
}
