package relay

import (
	"strconv"
	"time"
)

// grpcTimeoutUnits are the units of the grpc-timeout header, finest first
// (gRPC over HTTP/2: TimeoutUnit).
var grpcTimeoutUnits = [...]struct {
	letter byte
	unit   time.Duration
}{
	{'n', time.Nanosecond}, {'u', time.Microsecond}, {'m', time.Millisecond},
	{'S', time.Second}, {'M', time.Minute}, {'H', time.Hour},
}

// maxTimeoutDigits is how many digits a grpc-timeout may have.
const maxTimeoutDigits = 8

// parseGRPCTimeout reads a grpc-timeout value. A value that a Duration can't
// hold counts as the longest Duration. ok is false when the text is no timeout.
func parseGRPCTimeout(s string) (d time.Duration, ok bool) {
	if len(s) < 2 || len(s) > maxTimeoutDigits+1 {
		return 0, false
	}
	var n int64
	for i := range len(s) - 1 {
		digit := s[i] - '0'
		if digit > 9 {
			return 0, false
		}
		n = n*10 + int64(digit)
	}
	for _, u := range grpcTimeoutUnits {
		if u.letter == s[len(s)-1] {
			if n > int64(maxTimeout/u.unit) {
				return maxTimeout, true
			}
			return time.Duration(n) * u.unit, true
		}
	}
	return 0, false
}

// maxTimeout keeps now+timeout within an Instant: about 146 years.
const maxTimeout = time.Duration(1<<62 - 1)

// appendGRPCTimeout appends d in the finest unit that fits eight digits,
// rounded up: the upstream must not give up before the caller does.
func appendGRPCTimeout(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return append(b, "0n"...)
	}
	for _, u := range grpcTimeoutUnits {
		n := int64((d-1)/u.unit) + 1
		if n < 100_000_000 {
			return append(strconv.AppendInt(b, n, 10), u.letter)
		}
	}
	return append(b, "99999999H"...)
}

// parseMillis reads the decimal milliseconds of outrigger-timeout-ms.
func parseMillis(s string) (d time.Duration, ok bool) {
	n, err := strconv.ParseUint(s, 10, 40)
	if err != nil {
		return 0, false
	}
	return time.Duration(n) * time.Millisecond, true
}
