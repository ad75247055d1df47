package identity

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestOpenNamesTheFieldTheFileAndWhatIsWrong(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	good, other := ca.issue(t, leaf{}), ca.issue(t, leaf{})
	expired := ca.issue(t, leaf{notBefore: time.Now().Add(-2 * time.Hour), notAfter: time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)})
	tomorrow := ca.issue(t, leaf{notBefore: time.Now().Add(20 * time.Hour), notAfter: time.Now().Add(22 * time.Hour)})
	for _, c := range []struct {
		name, file string
		data       []byte // nil: the file is missing
		want       string
	}{
		{"missing certificate", "tls.crt", nil, "does not exist"},
		{"missing key", "tls.key", nil, "does not exist"},
		{"missing CA", "ca.crt", nil, "does not exist"},
		{"empty certificate", "tls.crt", []byte("\n"), "is empty"},
		{"DER instead of PEM", "tls.crt", good.certDER, "is not PEM"},
		{"key instead of certificate", "tls.crt", good.key, `has no certificate in it, only "PRIVATE KEY"`},
		{"certificate instead of key", "tls.key", good.cert, `has no private key in it, only "CERTIFICATE"`},
		{"text instead of key", "tls.key", []byte("hunter2"), "is not PEM"},
		{"broken key", "tls.key", pemOf("PRIVATE KEY", []byte("hunter2")), "the key can't be read"},
		{"encrypted key", "tls.key", pemOf("ENCRYPTED PRIVATE KEY", good.keyDER), "the key is encrypted"},
		{"another's key", "tls.key", other.key, "the key does not match the first certificate of"},
		{"broken certificate", "tls.crt", pemOf("CERTIFICATE", []byte("x")), "certificate 1 in it is broken"},
		{"expired certificate", "pair", nil, "the certificate expired on 2021-03-04 05:06:07 UTC"},
		{"certificate of tomorrow", "later", nil, "the certificate is not valid before"},
		{"no certificate in the bundle", "ca.crt", good.key, `has no certificate in it, only "PRIVATE KEY"`},
		{"half a bundle", "ca.crt", append(ca.pem(), pemOf("CERTIFICATE", []byte("x"))...), "certificate 2 in it is broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolder(t, good, ca)
			file := c.file
			switch {
			case file == "pair":
				f.write(t, "tls.crt", expired.cert)
				f.write(t, "tls.key", expired.key)
				file = "tls.crt"
			case file == "later":
				f.write(t, "tls.crt", tomorrow.cert)
				f.write(t, "tls.key", tomorrow.key)
				file = "tls.crt"
			case c.data == nil:
				os.Remove(f.path(file))
			default:
				f.write(t, file, c.data)
			}

			source, err := Open("egress.tls", f.mutual(), slog.New(slog.DiscardHandler))

			if err == nil {
				source.Close()
				t.Fatal("opened")
			}
			for _, part := range []string{"egress.tls: ", f.path(file), c.want} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("shows what the file holds: %q", err)
			}
		})
	}
}

func TestOpenRefusesAFolder(t *testing.T) {
	dir := t.TempDir()
	_, err := Open("api.tls", Settings{CAFile: dir}, slog.New(slog.DiscardHandler))
	if err == nil || err.Error() != "api.tls: CA file "+dir+": is not a file" {
		t.Errorf("%v", err)
	}
}

func TestOpenChecksTheSettings(t *testing.T) {
	_, err := Open("api.tls", Settings{CertFile: "a"}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "api.tls: certificate file a has no key file") {
		t.Errorf("%v", err)
	}
}

func TestWithoutAnyFileNothingRunsAndTheSystemsRootsAreUsed(t *testing.T) {
	source := open(t, Settings{})
	config := source.Client("h2")
	if config.RootCAs != nil || config.ServerName != "" || config.InsecureSkipVerify || source.Problem() != "" {
		t.Errorf("%+v, %q", config, source.Problem())
	}
	if got := open(t, Settings{ServerName: "orders.example"}).Client().ServerName; got != "orders.example" {
		t.Errorf("server name %q", got)
	}
}
