package email

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// drop, as an answer, closes the connection instead.
const drop = "drop"

// mute, as an answer, says nothing and waits for the client to leave.
const mute = "mute"

// mailbox is a scripted SMTP server: it answers as RFC 5321 says, unless a test
// says otherwise.
type mailbox struct {
	listener net.Listener
	running  sync.WaitGroup

	// extensions are said after EHLO, beside STARTTLS.
	extensions []string
	// tls is for STARTTLS or, if implicit, from the first byte.
	tls      *tls.Config
	implicit bool
	// on may answer a line in the server's place; "" leaves it to the server. It
	// runs under mu, and sees which connection and which line of it this is.
	// What stands for the greeting is the line "CONNECT", for the end of the
	// content ".".
	on func(d *dialogue, line string) string
	// login runs the exchange after AUTH and tells whether it went well. Nil:
	// AUTH is unknown.
	login func(d *dialogue, mechanism, initial string) bool

	mu sync.Mutex
	// lines are all lines of all connections, but for the content.
	lines       []string
	mails       []received
	connections int
	open        map[net.Conn]bool
}

// received is a mail as the server got it.
type received struct {
	from       string
	recipients []string
	content    string
	secure     bool
	login      string
	connection int
}

// dialogue is one connection.
type dialogue struct {
	server *mailbox
	conn   net.Conn
	r      *bufio.Reader
	// number counts connections from 1.
	number int
	secure bool
	login  string
}

// serve starts a server; with nothing set it is one that takes everything.
func serve(t testing.TB, m *mailbox) *mailbox {
	t.Helper()
	var err error
	if m.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	m.open = make(map[net.Conn]bool)
	m.running.Go(func() {
		for {
			conn, err := m.listener.Accept()
			if err != nil {
				return
			}
			m.mu.Lock()
			m.connections++
			m.open[conn] = true
			d := &dialogue{server: m, conn: conn, r: bufio.NewReader(conn), number: m.connections}
			m.mu.Unlock()
			m.running.Go(func() {
				d.run()
				m.mu.Lock()
				delete(m.open, conn)
				m.mu.Unlock()
				conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		m.listener.Close()
		m.hangUp()
		m.running.Wait()
	})
	return m
}

// hangUp closes every connection.
func (m *mailbox) hangUp() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for conn := range m.open {
		conn.Close()
	}
}

func (m *mailbox) address() string { return m.listener.Addr().String() }

func (m *mailbox) port() string {
	_, port, _ := net.SplitHostPort(m.address())
	return port
}

func (m *mailbox) received() []received {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

// said are the lines that begin with a word.
func (m *mailbox) said(word string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []string
	for _, line := range m.lines {
		if strings.HasPrefix(line, word) {
			list = append(list, line)
		}
	}
	return list
}

// scripted is what the test wants to be answered.
func (d *dialogue) scripted(line string) string {
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	d.server.lines = append(d.server.lines, line)
	if d.server.on == nil {
		return ""
	}
	return d.server.on(d, line)
}

// reply sends an answer; false ends the dialogue.
func (d *dialogue) reply(text string) bool {
	switch text {
	case drop:
		return false
	case mute:
		io.Copy(io.Discard, d.r)
		return false
	}
	_, err := io.WriteString(d.conn, strings.ReplaceAll(text, "\n", "\r\n")+"\r\n")
	return err == nil && !strings.HasPrefix(text, "421")
}

// line reads one line.
func (d *dialogue) line() (string, bool) {
	line, err := d.r.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err == nil
}

// upgrade goes on under TLS.
func (d *dialogue) upgrade() bool {
	secured := tls.Server(d.conn, d.server.tls)
	if secured.Handshake() != nil {
		return false
	}
	d.conn, d.r, d.secure = secured, bufio.NewReader(secured), true
	return true
}

func (d *dialogue) run() {
	if d.server.implicit && !d.upgrade() {
		return
	}
	greeting := d.scripted("CONNECT")
	if greeting == "" {
		greeting = "220 mail.test ESMTP"
	}
	if !d.reply(greeting) {
		return
	}
	mail := received{connection: d.number}
	for {
		line, ok := d.line()
		if !ok {
			return
		}
		verb, rest, _ := strings.Cut(line, " ")
		verb = strings.ToUpper(verb)
		answer := d.scripted(line)
		if verb == "AUTH" && answer == "" && d.server.login != nil {
			mechanism, initial, _ := strings.Cut(rest, " ")
			answer = "535 5.7.8 Authentication credentials invalid"
			if d.server.login(d, mechanism, initial) {
				answer = "235 2.7.0 Authentication successful"
			}
		}
		if answer == "" {
			switch verb {
			case "EHLO":
				answer = d.greet()
			case "STARTTLS":
				answer = "220 2.0.0 Ready"
			case "MAIL":
				mail = received{connection: d.number, from: rest, secure: d.secure, login: d.login}
				answer = "250 2.1.0 Ok"
			case "RCPT":
				mail.recipients = append(mail.recipients, rest)
				answer = "250 2.1.5 Ok"
			case "DATA":
				answer = "354 Go ahead"
			case "RSET", "NOOP", "HELO":
				answer = "250 2.0.0 Ok"
			case "QUIT":
				d.reply("221 2.0.0 Bye")
				return
			default:
				answer = "500 5.5.2 Unknown command"
			}
		}
		if !d.reply(answer) {
			return
		}
		switch {
		case verb == "STARTTLS" && strings.HasPrefix(answer, "220"):
			if !d.upgrade() {
				return
			}
		case verb == "DATA" && strings.HasPrefix(answer, "354"):
			if !d.content(&mail) {
				return
			}
		}
	}
}

func (d *dialogue) greet() string {
	lines := slices.Clone(d.server.extensions)
	if d.server.tls != nil && !d.secure {
		lines = append(lines, "STARTTLS")
	}
	lines = append([]string{"mail.test"}, lines...)
	for i := range lines {
		separator := "-"
		if i == len(lines)-1 {
			separator = " "
		}
		lines[i] = "250" + separator + lines[i]
	}
	return strings.Join(lines, "\n")
}

// content reads a mail up to the dot, and keeps it unless the test answers it.
func (d *dialogue) content(mail *received) bool {
	var content strings.Builder
	for {
		line, ok := d.line()
		if !ok {
			return false
		}
		if line == "." {
			break
		}
		content.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
	mail.content = content.String()
	answer := d.scripted(".")
	if answer == "" {
		d.server.mu.Lock()
		d.server.mails = append(d.server.mails, *mail)
		answer = fmt.Sprintf("250 2.0.0 Ok: queued as %d", len(d.server.mails))
		d.server.mu.Unlock()
	}
	return d.reply(answer)
}

// certificate makes a certificate for names, and a file that it is trusted by.
func certificate(t *testing.T, names ...string) (config *tls.Config, caFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "mail test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              names,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, caFile
}

// newSender makes a sender that is closed at the end of the test.
func newSender(t *testing.T, settings Settings) *Sender {
	t.Helper()
	sender, err := NewSender(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sender.Close() })
	return sender
}

// submitted is when the tests' mails were written.
var submitted = time.Date(2026, 3, 14, 15, 9, 26, 0, time.UTC)

// hello is a mail that every server takes.
func helloMail() Message {
	return Message{
		From:      "Shop <shop@example.com>",
		To:        []string{"Ada <ada@example.org>"},
		Subject:   "Hello",
		Text:      "Hello Ada\n",
		MessageID: "task-1@example.com",
		Date:      submitted,
	}
}

// dialed is how many connections there were.
func (m *mailbox) dialed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connections
}
