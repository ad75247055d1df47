package relay

import (
	"golang.org/x/net/http2/hpack"
)

// newDecoder returns an HPACK decoder with the table that HTTP/2 begins with.
func newDecoder() *hpack.Decoder { return hpack.NewDecoder(defaultTableSize, nil) }
