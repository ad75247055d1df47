package policy

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"time"
)

// NoMore is the pushback that asks for no further attempt.
const NoMore time.Duration = -1

// maxPushback bounds what a server may ask for: no call waits longer.
const maxPushback = time.Hour

// ParsePushback reads grpc-retry-pushback-ms. A value that is negative or no
// number asks for no further attempt (gRFC A6). Empty: zero, nothing was asked.
func ParsePushback(s string) time.Duration {
	if s == "" {
		return 0
	}
	ms, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return NoMore
	}
	// Zero is "at once", which is not the same as nothing.
	return min(max(time.Duration(ms)*time.Millisecond, 1), maxPushback)
}

// ParseRetryAfter reads the Retry-After header's seconds. Anything else, a date
// included, counts as nothing.
func ParseRetryAfter(s string) time.Duration {
	seconds, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxPushback)
}

// ParseRetryInfo finds the delay of a google.rpc.RetryInfo in
// grpc-status-details-bin (base64 of google.rpc.Status). Zero: there is none.
func ParseRetryInfo(details string) time.Duration {
	status, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(details, "="))
	if err != nil {
		return 0
	}
	var delay time.Duration
	eachField(status, func(number uint64, value []byte, _ uint64) {
		if number != 3 { // Status.details
			return
		}
		var name string
		var info []byte
		eachField(value, func(number uint64, value []byte, _ uint64) {
			switch number {
			case 1: // Any.type_url
				name = string(value)
			case 2: // Any.value
				info = value
			}
		})
		if !strings.HasSuffix(name, "/google.rpc.RetryInfo") {
			return
		}
		eachField(info, func(number uint64, value []byte, _ uint64) {
			if number == 1 { // RetryInfo.retry_delay
				delay = parseDuration(value)
			}
		})
	})
	return delay
}

// parseDuration reads a google.protobuf.Duration; one that is not positive
// counts as none.
func parseDuration(b []byte) time.Duration {
	var d time.Duration
	eachField(b, func(number uint64, _ []byte, n uint64) {
		switch {
		case number == 1 && n <= uint64(maxPushback/time.Second):
			d += time.Duration(n) * time.Second
		case number == 1 && n <= 1<<62:
			d = maxPushback
		case number == 2 && n < uint64(time.Second):
			d += time.Duration(n)
		}
	})
	return min(max(d, 0), maxPushback)
}

// eachField walks the fields of an encoded message: the bytes of those with a
// length, the number of those that are varints. It stops at what is malformed.
func eachField(b []byte, do func(number uint64, value []byte, n uint64)) {
	for len(b) > 0 {
		tag, size := binary.Uvarint(b)
		if size <= 0 {
			return
		}
		b = b[size:]
		var n uint64
		switch tag & 7 {
		case 0, 2:
			if n, size = binary.Uvarint(b); size <= 0 {
				return
			}
			b = b[size:]
		case 1:
			n = 8
		case 5:
			n = 4
		default:
			return
		}
		if tag&7 == 0 {
			do(tag>>3, nil, n)
			continue
		}
		if n > uint64(len(b)) {
			return
		}
		if tag&7 == 2 {
			do(tag>>3, b[:n], 0)
		}
		b = b[n:]
	}
}
