package relay

import "golang.org/x/net/http2/hpack"

// Calls of one method have the same header list, but for what is encoded once
// (encodeOnce), and answers have the same heads and trailers. A list that was
// encoded without a change of the peer's table is the same bytes until the next
// change, so these are remembered: looking up each field in the encoder's table
// is a tenth of what a small call costs.

const (
	templateSlots  = 4
	templateFields = 24  // longer lists are not remembered
	templateBytes  = 512 // nor are longer blocks
)

// template is a header list and its encoding.
type template struct {
	epoch  uint32
	fields []hpack.HeaderField
	block  []byte
}

// templates are the lists that a connection encoded last. The zero value is
// empty. Guarded by conn.mu.
type templates struct {
	epoch uint32 // changes of the peer's table
	next  uint8  // the slot that is taken next
	slots []template
}

// find returns the encoding of a list, or nil.
func (t *templates) find(fields []hpack.HeaderField) []byte {
	for i := range t.slots {
		s := &t.slots[i]
		if s.epoch == t.epoch && len(s.fields) == len(fields) && sameFields(s.fields, fields) {
			return s.block
		}
	}
	return nil
}

func sameFields(a, b []hpack.HeaderField) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// keep remembers an encoding that changed nothing of the table.
func (t *templates) keep(fields []hpack.HeaderField, block []byte) {
	if len(fields) > templateFields || len(block) > templateBytes {
		return
	}
	for i := range fields {
		if fields[i].Sensitive {
			return // it won't come again
		}
	}
	if len(t.slots) < templateSlots {
		t.slots = append(t.slots, template{})
	}
	s := &t.slots[int(t.next)%len(t.slots)]
	t.next++
	s.epoch = t.epoch
	s.fields = append(s.fields[:0], fields...)
	s.block = append(s.block[:0], block...)
}

// encodeAll adds a header list to the block under construction. c.mu is held.
func (c *conn) encodeAll(fields []hpack.HeaderField) {
	if block := c.templates.find(fields); block != nil {
		c.encoded.b = append(c.encoded.b, block...)
		return
	}
	start, before := len(c.encoded.b), c.templates.epoch
	for i := range fields {
		c.encode(&fields[i])
	}
	if c.templates.epoch == before {
		c.templates.keep(fields, c.encoded.b[start:])
	}
}

// encode adds a field to the block under construction. c.mu is held.
func (c *conn) encode(f *hpack.HeaderField) {
	at := len(c.encoded.b)
	_ = c.enc.WriteField(*f) // the sink takes everything
	const (
		withIndexing = 0x40 // literals that the table takes (RFC 7541, 6.2.1)
		sizeUpdate   = 0x20 // 6.3
	)
	if first := c.encoded.b[at]; first&0xc0 == withIndexing || first&0xe0 == sizeUpdate {
		c.templates.epoch++
	}
}
