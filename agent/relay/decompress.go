package relay

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/outrigger-rpc/outrigger/policy"
)

// encodingKey names what messages with the compressed flag are compressed with
// (gRPC over HTTP/2: Message-Encoding).
const encodingKey = "grpc-encoding"

// messageOf returns a copy of the one message that a gRPC request consists of,
// without its prefix and not compressed, or says why there is none that could
// be kept.
func (c *call) messageOf(body []byte) ([]byte, *policy.Refusal) {
	if len(body) < messagePrefixLen || uint64(len(body)) != messagePrefixLen+uint64(binary.BigEndian.Uint32(body[1:])) {
		return nil, c.notDeferrable("the request ended without one whole message: only unary calls can be kept for later")
	}
	compressed, message := body[0], body[messagePrefixLen:]
	switch {
	case compressed == 0:
		return bytes.Clone(message), nil
	case compressed > 1:
		return nil, c.notDeferrable(fmt.Sprintf("the message's first byte is %d; want 0, or 1 for a compressed one", compressed))
	case c.req.Get(encodingKey) != "gzip":
		return nil, c.notDeferrable("the message says that it is compressed, and no grpc-encoding says how")
	}
	limit := c.relay.limits.ReplayBytes
	plain, err := gunzip(message, limit)
	switch {
	case err != nil:
		return nil, c.notDeferrable(fmt.Sprintf("the message is no gzip: %v", err))
	case len(plain) > limit:
		return nil, c.policy.Refuse(policy.RequestTooLarge, "", fmt.Sprintf("the message decompressed is longer than the %d bytes that a call may have to be kept for later", limit))
	}
	return plain, nil
}

// gunzip decompresses up to limit bytes, and one more of what is longer.
func gunzip(compressed []byte, limit int) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(compressed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(z, int64(limit)+1))
}
