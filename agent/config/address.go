package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is what fits into a unix socket's address on Linux, its
// terminating zero left out.
const maxSocketPath = 107

// address is "host:port" or "unix:PATH" in one spelling, so that equal ones
// compare equal.
type address struct {
	unix string // the path; the rest is empty then
	host string // lower case; an IP address in its short form; empty: all of the machine's
	port uint16
}

// parseAddress reads an address; wrong says what is wrong with it.
func parseAddress(text string) (a address, wrong string) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		switch {
		case path == "" || strings.ContainsRune(path, 0):
			return address{}, "want unix:PATH"
		case len(path) > maxSocketPath:
			return address{}, "the path is too long for a socket; want at most 107 bytes"
		}
		return address{unix: filepath.Clean(path)}, ""
	}
	if strings.Contains(text, "://") {
		return address{}, "want host:port or unix:PATH, without a scheme"
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return address{}, "want host:port or unix:PATH"
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return address{}, "want a port up to 65535"
	}
	a = address{host: strings.ToLower(host), port: uint16(n)}
	if ip, err := netip.ParseAddr(host); err == nil {
		a.host = ip.Unmap().String()
	} else if strings.ContainsFunc(a.host, notInName) {
		return address{}, "want a host name or an IP address before the port"
	}
	return a, ""
}

func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_')
}

// notDialable says why nothing can be called at the address; empty: it can.
func (a address) notDialable() string {
	switch {
	case a.unix != "":
		return ""
	case a.host == "":
		return "want a host before the port"
	case a.port == 0:
		return "want a port from 1 to 65535"
	}
	return ""
}

// meets reports whether the two can't be told apart by who connects or
// listens. Port 0 is always a free one.
func (a address) meets(b address) bool {
	if a.unix != "" || b.unix != "" {
		return a.unix == b.unix
	}
	return a.port == b.port && a.port != 0 && (a.host == b.host || covers(a.host, b.host) || covers(b.host, a.host))
}

// covers reports whether the host means the other one too: a wildcard all of
// its family, localhost both loopback addresses.
func covers(host, other string) bool {
	ip, err := netip.ParseAddr(other)
	switch host {
	case "", "::":
		return true
	case "0.0.0.0":
		return err != nil || ip.Is4()
	case "localhost":
		return other == "127.0.0.1" || other == "::1"
	}
	return false
}

// badCollector says what is wrong with telemetry.otlp.endpoint; empty: nothing.
func badCollector(endpoint string) string {
	const want = "want host:port, http://host:port or https://host:port"
	if endpoint == "" {
		return ""
	}
	target := endpoint
	for _, scheme := range []string{"http://", "https://"} {
		if rest, ok := strings.CutPrefix(endpoint, scheme); ok {
			target = strings.TrimSuffix(rest, "/")
		}
	}
	if a, wrong := parseAddress(target); wrong != "" || a.unix != "" || a.notDialable() != "" {
		return want
	}
	return ""
}
