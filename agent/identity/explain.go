package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// Explain says in a few plain words why a handshake failed, or the first read
// after it: in TLS 1.3 a client learns only then that the server refused its
// certificate. It is meant for the caller as well as for the log: what the peer
// chose is shortened and kept on one line. Nil gives the empty text.
func Explain(err error) string {
	if err == nil {
		return ""
	}
	var (
		notReady *notReadyError
		id       *idError
		domain   *domainError
		protocol *protocolError
		invalid  x509.CertificateInvalidError
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		record   tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &notReady):
		return notReady.Error()
	case errors.As(err, &id):
		return id.Error()
	case errors.As(err, &domain):
		return domain.Error()
	case errors.As(err, &protocol):
		return protocol.Error()
	case errors.As(err, &invalid):
		return explainInvalid(invalid, time.Now())
	case errors.As(err, &unknown):
		return explainUnknown(unknown)
	case errors.As(err, &name):
		return explainName(name)
	case errors.As(err, &record):
		return explainRecord(record)
	}
	if text := explainAlert(err); text != "" {
		return text
	}
	if text := explainBroken(err); text != "" {
		return text
	}
	return explainText(err.Error())
}

func explainInvalid(err x509.CertificateInvalidError, now time.Time) string {
	switch {
	case err.Reason == x509.Expired && err.Cert != nil && err.Cert.NotBefore.After(now):
		return fmt.Sprintf("the peer's certificate (for %s) is not valid before %s", names(err.Cert), date(err.Cert.NotBefore))
	case err.Reason == x509.Expired && err.Cert != nil && err.Cert.IsCA:
		return fmt.Sprintf("the CA %q that issued the peer's certificate expired on %s", clip(err.Cert.Subject.String()), date(err.Cert.NotAfter))
	case err.Reason == x509.Expired && err.Cert != nil:
		return fmt.Sprintf("the peer's certificate (for %s) expired on %s", names(err.Cert), date(err.Cert.NotAfter))
	case err.Reason == x509.IncompatibleUsage:
		return "the peer's certificate may not be used for this side of a connection (its extended key usage lacks server or client authentication)"
	}
	return "the peer's certificate is invalid: " + clip(strings.TrimPrefix(err.Error(), "x509: "))
}

func explainUnknown(err x509.UnknownAuthorityError) string {
	cert := err.Cert
	switch {
	case cert == nil:
		return "the peer's certificate comes from an authority that is not trusted"
	case bytes.Equal(cert.RawSubject, cert.RawIssuer):
		return fmt.Sprintf("the peer's certificate (%q) is self-signed and not trusted", clip(cert.Subject.String()))
	}
	text := fmt.Sprintf("the peer's certificate was issued by %q, which is not trusted", clip(cert.Issuer.String()))
	if strings.Contains(err.Error(), "candidate authority") {
		text += " (an authority of that name is, but with another key)"
	}
	return text
}

func explainName(err x509.HostnameError) string {
	return fmt.Sprintf("the peer's certificate is for %s, not for %q", names(err.Certificate), clip(err.Host))
}

// explainRecord tells what a peer speaks that does not speak TLS.
func explainRecord(err tls.RecordHeaderError) string {
	h := err.RecordHeader[:]
	switch {
	case bytes.HasPrefix(h, []byte("HTTP/")):
		return "the peer does not speak TLS: it answered in plain HTTP/1"
	case bytes.HasPrefix(h, []byte("PRI *")):
		return "the peer does not speak TLS: it sent plain HTTP/2"
	case h[0] == 0 && h[3] == 4: // a SETTINGS frame: 24 bits of length, type 4
		return "the peer does not speak TLS: it answered in plain HTTP/2"
	case isMethod(h):
		return "the peer does not speak TLS: it sent a plain HTTP/1 request"
	}
	return fmt.Sprintf("the peer does not speak TLS: it sent %q", h)
}

func isMethod(header []byte) bool {
	for _, method := range []string{"GET ", "PUT ", "POST ", "HEAD ", "PATCH", "DELET", "OPTIO", "CONNE", "TRACE"} {
		if bytes.HasPrefix(header, []byte(method)) {
			return true
		}
	}
	return false
}

// alerts are what a peer's alert means, by its name in crypto/tls.
var alerts = map[string]string{
	"bad certificate":                 "the peer refused our certificate",
	"unsupported certificate":         "the peer refused our certificate: it does not support its kind",
	"revoked certificate":             "the peer refused our certificate: it is revoked",
	"expired certificate":             "the peer refused our certificate: it has expired, or its clock is wrong",
	"unknown certificate":             "the peer refused our certificate",
	"unknown certificate authority":   "the peer refused our certificate: it does not trust the CA that issued it",
	"access denied":                   "the peer refused us: our certificate is valid, but not allowed",
	"certificate required":            "the peer wants a client certificate, and we have none",
	"no application protocol":         "the peer speaks none of the protocols that we offer (ALPN)",
	"protocol version not supported":  "the peer does not speak a TLS version that we do",
	"handshake failure":               "the peer and we share no cipher suite, or it wants a client certificate",
	"insufficient security level":     "the peer wants stronger cipher suites than ours",
	"unrecognized name":               "the peer does not know the server name that we ask for",
	"internal error":                  "the peer failed by itself; its log knows more",
	"encrypted client hello required": "the peer wants an encrypted client hello",
}

// explainAlert says what the peer told, or what we told it.
func explainAlert(err error) string {
	var op *net.OpError
	if !errors.As(err, &op) || op.Err == nil {
		return ""
	}
	name := strings.TrimPrefix(op.Err.Error(), "tls: ")
	switch op.Op {
	case "remote error":
		if meaning, ok := alerts[name]; ok {
			return fmt.Sprintf("%s (alert: %s)", meaning, name)
		}
		return "the peer ended the handshake (alert: " + clip(name) + ")"
	case "local error":
		return "the peer broke the TLS protocol: " + clip(name)
	}
	return ""
}

// explainBroken is for connections that end or stand still.
func explainBroken(err error) string {
	var network net.Error
	switch {
	case errors.Is(err, context.Canceled):
		return "the handshake was given up"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &network) && network.Timeout():
		return "the peer did not finish the handshake in time; perhaps it does not speak TLS"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the peer closed the connection during the handshake; perhaps it does not speak TLS"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the peer reset the connection during the handshake; perhaps it does not speak TLS"
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return "the connection was closed during the handshake"
	}
	return ""
}

// explainText is for errors that crypto/tls gives no type.
func explainText(text string) string {
	text = strings.TrimPrefix(text, "tls: ")
	switch {
	case strings.Contains(text, "didn't provide a certificate"):
		return "the peer sent no client certificate, and one is required"
	case strings.Contains(text, "unsupported application protocols"):
		_, offered, _ := strings.Cut(text, "protocols ")
		return "the peer speaks none of our protocols (ALPN); it offered " + clip(strings.Trim(offered, "()"))
	case strings.Contains(text, "unadvertised ALPN protocol"):
		return "the peer chose a protocol (ALPN) that we did not offer"
	case strings.Contains(text, "only unsupported versions"), strings.Contains(text, "unsupported protocol version"):
		return "the peer does not speak a TLS version that we do: " + clip(versions(text))
	case strings.Contains(text, "no cipher suite supported by both"):
		return "the peer and we share no cipher suite"
	}
	return clip(text)
}

// versions spells the version numbers out that end an error of crypto/tls.
func versions(text string) string {
	for version, name := range map[string]string{"300": "SSL 3.0", "301": "TLS 1.0", "302": "TLS 1.1", "303": "TLS 1.2", "304": "TLS 1.3"} {
		text = strings.ReplaceAll(text, version, name)
	}
	return text
}

// names lists what a certificate is valid for.
func names(cert *x509.Certificate) string {
	var list []string
	list = append(list, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		list = append(list, ip.String())
	}
	for _, uri := range cert.URIs {
		list = append(list, uri.String())
	}
	if len(list) == 0 {
		return fmt.Sprintf("no name (subject %q)", clip(cert.Subject.String()))
	}
	return listed(list)
}
