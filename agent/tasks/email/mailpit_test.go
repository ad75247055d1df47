package email

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The same against a server that we did not write: Mailpit, which takes mails
// and shows them by HTTP. OUTRIGGER_MAILPIT names its binary.
func TestMailpit(t *testing.T) {
	binary := os.Getenv("OUTRIGGER_MAILPIT")
	if binary == "" {
		t.Skip("OUTRIGGER_MAILPIT does not name a mailpit binary; make test-email builds one")
	}
	config, ca := certificate(t, "mail.example.com")
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile, users := filepath.Join(dir, "key.pem"), filepath.Join(dir, "users")
	for path, content := range map[string][]byte{
		keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		users:   []byte("shop:s3cret\n"),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	smtp, web := freePort(t), freePort(t)
	var output bytes.Buffer
	command := exec.Command(binary, "--smtp", smtp, "--listen", web, "--disable-version-check",
		"--smtp-tls-cert", ca, "--smtp-tls-key", keyFile, "--smtp-require-starttls", "--smtp-auth-file", users)
	command.Stdout, command.Stderr = &output, &output
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		command.Process.Kill()
		command.Wait()
		if t.Failed() {
			t.Logf("mailpit: %s", output.Bytes())
		}
	})
	awaitPort(t, smtp)
	awaitPort(t, web)

	sender := newSender(t, Settings{
		Address: smtp, Security: STARTTLS, ServerName: "mail.example.com", CAFile: ca,
		Username: "shop", PasswordFile: passwordFile(t, "s3cret"), From: "Bücher <shop@bücher.example>",
	})
	m := helloMail()
	m.From = ""
	m.To = []string{"Zoë <zoe@example.org>", "ada@example.org"}
	m.Bcc = []string{"secret@example.org"}
	m.Subject = "Schöne Grüße 🎉"
	m.Text, m.HTML = "Hello Zoë\n.\nBye\n", "<p>Hello Zoë</p>"
	m.Attachments = []Attachment{{Name: "Rechnung März.pdf", ContentType: "application/pdf", Content: []byte("%PDF-1.7\n.\n\x00\xff")}}
	m.Headers = map[string]string{"List-Unsubscribe": "<https://example.com/u>"}
	for range 2 {
		receipt, err := sender.Send(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("accepted: %s", receipt.Response)
	}

	var list struct {
		Messages []struct{ ID, MessageID string }
	}
	get(t, "http://"+web+"/api/v1/messages", &list)
	if len(list.Messages) != 2 || list.Messages[0].MessageID != "task-1@example.com" || list.Messages[1].MessageID != "task-1@example.com" {
		t.Fatalf("%+v, want two of task-1@example.com", list)
	}
	type person struct{ Name, Address string }
	var got struct {
		From        person
		To, Bcc     []person
		Date        time.Time
		Subject     string
		Text, HTML  string
		Attachments []struct{ PartID, FileName, ContentType string }
	}
	message := "http://" + web + "/api/v1/message/" + list.Messages[0].ID
	get(t, message, &got)
	if got.From != (person{"Bücher", "shop@xn--bcher-kva.example"}) || len(got.To) != 2 || got.To[0] != (person{"Zoë", "zoe@example.org"}) {
		t.Errorf("from %v to %v", got.From, got.To)
	}
	if len(got.Bcc) != 1 || got.Bcc[0].Address != "secret@example.org" {
		t.Errorf("bcc by the envelope: %v", got.Bcc)
	}
	if !got.Date.Equal(submitted) || got.Subject != m.Subject || got.HTML != m.HTML || strings.ReplaceAll(got.Text, "\r\n", "\n") != m.Text {
		t.Errorf("got %+v", got)
	}
	if len(got.Attachments) != 1 || got.Attachments[0].FileName != "Rechnung März.pdf" || got.Attachments[0].ContentType != "application/pdf" {
		t.Fatalf("attachments %+v", got.Attachments)
	}
	if content := fetch(t, message+"/part/"+got.Attachments[0].PartID); !bytes.Equal(content, m.Attachments[0].Content) {
		t.Errorf("attached %q", content)
	}

	t.Run("a wrong password", func(t *testing.T) {
		sender := newSender(t, Settings{
			Address: smtp, Security: STARTTLS, ServerName: "mail.example.com", CAFile: ca,
			Username: "shop", PasswordFile: passwordFile(t, "wrong"),
		})

		_, err := sender.Send(t.Context(), helloMail())

		if e, ok := err.(*Error); !ok || e.Stage != StageLogin || e.Code != 535 || e.Permanent {
			t.Errorf("%v, want 535 at the login", err)
		}
	})
	t.Run("without TLS", func(t *testing.T) {
		sender := newSender(t, Settings{Address: smtp})

		_, err := sender.Send(t.Context(), helloMail())

		if e, ok := err.(*Error); !ok || e.Stage != StageSender || e.Code != 530 || e.Permanent {
			t.Errorf("%v, want a transient 530", err)
		}
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// awaitPort waits until something listens.
func awaitPort(t *testing.T, address string) {
	t.Helper()
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
	}
	t.Fatalf("nothing listens on %s", address)
}

// fetch gets what a URL has.
func fetch(t *testing.T, url string) []byte {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v: %s", url, response.Status, err, body)
	}
	return body
}

func get(t *testing.T, url string, into any) {
	t.Helper()
	if err := json.Unmarshal(fetch(t, url), into); err != nil {
		t.Fatal(err)
	}
}
