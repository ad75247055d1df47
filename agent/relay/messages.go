package relay

import "encoding/binary"

// messagePrefixLen is the length of what stands before each gRPC message: a
// flag and the length.
const messagePrefixLen = 5

// messageCounter counts the gRPC messages of one direction by their prefixes.
// It looks at no message.
type messageCounter struct {
	whole  uint64 // messages that ended
	left   uint32 // bytes of the present one still to come
	prefix [messagePrefixLen]byte
	have   int8 // bytes of prefix read
}

// count takes the next bytes of the direction.
func (m *messageCounter) count(p []byte) {
	for len(p) > 0 {
		if m.left > 0 {
			n := min(uint64(m.left), uint64(len(p)))
			p = p[n:]
			if m.left -= uint32(n); m.left == 0 {
				m.whole++
			}
			continue
		}
		n := copy(m.prefix[m.have:], p)
		p = p[n:]
		if m.have += int8(n); m.have < messagePrefixLen {
			return
		}
		m.have = 0
		if m.left = binary.BigEndian.Uint32(m.prefix[1:]); m.left == 0 {
			m.whole++
		}
	}
}

// between reports whether no message is under way.
func (m *messageCounter) between() bool { return m.left == 0 && m.have == 0 }
