package relay

// history is what a client's connection remembers of streams that are over, so
// that frames on them can be told apart (RFC 9113, 5.1): those that crossed our
// own reset on their way are fine, those after the client's own end are not,
// and neither is a stream number that was passed over.
type history struct {
	opened uint64     // bit n: the stream n steps before the last one was opened
	ended  [64]uint32 // streams that the client ended itself, the latest ones
	next   int        // place in ended
}

// opens notes a stream after last.
func (h *history) opens(last, stream uint32) {
	if steps := (stream - last + 1) / 2; steps < 64 {
		h.opened <<= steps
	} else {
		h.opened = 0
	}
	h.opened |= 1
}

// passedOver reports whether a stream up to last was certainly never opened.
func (h *history) passedOver(last, stream uint32) bool {
	steps := (last - stream) / 2
	return steps < 64 && h.opened&(1<<steps) == 0
}

// ends notes that the client ended the stream.
func (h *history) ends(stream uint32) {
	h.ended[h.next%len(h.ended)] = stream
	h.next++
}

// endedByClient reports whether the client itself ended the stream a while ago.
func (h *history) endedByClient(stream uint32) bool {
	for _, id := range h.ended {
		if id == stream {
			return true
		}
	}
	return false
}
