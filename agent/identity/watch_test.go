package identity

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serves waits until the server's certificate is this one.
func serves(t *testing.T, server *tls.Config, client *Source, p pair) {
	t.Helper()
	eventually(t, "the new certificate", func() bool {
		o := shake(t, server, client.Client("h2"))
		return o.ok() && o.seen.PeerCertificates[0].Equal(p.leaf)
	})
}

func TestAPairThatIsWrittenOverIsUsedWithoutARestart(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	first, second := ca.issue(t, leaf{}), ca.issue(t, leaf{})
	f := newFolder(t, first, ca)
	source, log := openLogged(t, f.pairOnly())
	server := source.Server("h2") // one for the listener's life
	client := open(t, f.caOnly())
	serves(t, server, client, first)

	f.write(t, "tls.crt", second.cert)
	f.write(t, "tls.key", second.key)

	serves(t, server, client, second)
	if good, bad := source.Rotations(); good != 1 || bad != 0 {
		t.Errorf("%d rotations, %d refused", good, bad)
	}
	if !strings.Contains(log.String(), "TLS identity rotated") || !strings.Contains(log.String(), "field=egress.tls") {
		t.Errorf("log: %s", log)
	}
}

func TestAKeyThatComesLateIsWaitedFor(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	second := ca.issue(t, leaf{})
	f := newFolder(t, ca.issue(t, leaf{}), ca)
	source, log := openLogged(t, f.pairOnly())

	f.write(t, "tls.crt", second.cert)
	time.Sleep(3 * settle) // the certificate is looked at without its key
	f.write(t, "tls.key", second.key)

	serves(t, source.Server("h2"), open(t, f.caOnly()), second)
	if _, bad := source.Rotations(); bad != 0 || strings.Contains(log.String(), "WARN") {
		t.Errorf("%d refused; log: %s", bad, log)
	}
}

func TestTheSymlinksOfAKubernetesSecretAreFollowed(t *testing.T) {
	// Given a mounted Secret: tls.crt ▶ ..data/tls.crt, ..data ▶ ..2026_1.
	ca := newAuthority(t, "Test CA")
	first, second, third := ca.issue(t, leaf{}), ca.issue(t, leaf{}), ca.issue(t, leaf{})
	mount := folder(t.TempDir())
	version := func(name string, p pair) {
		if err := os.Mkdir(mount.path(name), 0o700); err != nil {
			t.Fatal(err)
		}
		mount.write(t, filepath.Join(name, "tls.crt"), p.cert)
		mount.write(t, filepath.Join(name, "tls.key"), p.key)
		mount.write(t, filepath.Join(name, "ca.crt"), ca.pem())
		// As the kubelet does: a new link, renamed over the old one.
		if err := os.Symlink(name, mount.path("..data_tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(mount.path("..data_tmp"), mount.path("..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..2026_1", first)
	for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
		if err := os.Symlink(filepath.Join("..data", name), mount.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	server := open(t, mount.pairOnly()).Server("h2")
	client := open(t, mount.caOnly())
	serves(t, server, client, first)

	version("..2026_2", second)
	os.RemoveAll(mount.path("..2026_1"))
	serves(t, server, client, second)

	version("..2026_3", third)
	serves(t, server, client, third)
}

func TestAServersCAIsReplacedForTheNextHandshake(t *testing.T) {
	old, next := newAuthority(t, "Old CA"), newAuthority(t, "New CA")
	p := old.issue(t, leaf{})
	f := newFolder(t, p, old)
	server := open(t, f.mutual()).Server("h2")
	trusting := newFolder(t, old.issue(t, leaf{}), old)
	client := open(t, trusting.mutual())

	// A client that keeps its sessions: no ticket may spare it the new CA.
	sessions := tls.NewLRUClientSessionCache(10)
	keeping := func() *tls.Config {
		config := client.Client("h2")
		config.ClientSessionCache = sessions
		return config
	}
	for range 2 {
		if o := shake(t, server, keeping()); !o.ok() || o.met.DidResume {
			t.Fatalf("%v, %v, resumed %v", o.server, o.client, o.met.DidResume)
		}
	}

	f.write(t, "ca.crt", next.pem())

	eventually(t, "the refusal", func() bool { return shake(t, server, keeping()).server != nil })
	says(t, shake(t, server, keeping()).server, `issued by "CN=Old CA", which is not trusted`)
}

func TestAClientsCAIsReplacedForTheNextConnection(t *testing.T) {
	old, next := newAuthority(t, "Old CA"), newAuthority(t, "New CA")
	server := open(t, newFolder(t, next.issue(t, leaf{}), next).pairOnly()).Server("h2")
	f := newFolder(t, old.issue(t, leaf{}), old)
	client := open(t, f.caOnly())
	says(t, shake(t, server, client.Client("h2")).client, `issued by "CN=New CA", which is not trusted`)

	f.write(t, "ca.crt", append(old.pem(), next.pem()...))

	eventually(t, "trust in the new CA", func() bool { return shake(t, server, client.Client("h2")).ok() })
}

func TestABrokenPairKeepsTheOldOneAndAGoodOneClearsTheProblem(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	first, second := ca.issue(t, leaf{}), ca.issue(t, leaf{})
	f := newFolder(t, first, ca)
	source, log := openLogged(t, f.pairOnly())
	server, client := source.Server("h2"), open(t, f.caOnly())

	for _, c := range []struct{ what, want string }{
		{"another's key", "does not match the first certificate of " + f.path("tls.crt")},
		{"rubbish", "key file " + f.path("tls.key") + ": is not PEM"},
		{"nothing", "key file " + f.path("tls.key") + ": does not exist"},
	} {
		switch c.what {
		case "another's key":
			f.write(t, "tls.key", second.key)
		case "rubbish":
			f.write(t, "tls.key", []byte("rubbish"))
		case "nothing":
			os.Remove(f.path("tls.key"))
		}
		eventually(t, c.what, func() bool { return strings.Contains(source.Problem(), c.want) })
		if o := shake(t, server, client.Client("h2")); !o.ok() || !o.seen.PeerCertificates[0].Equal(first.leaf) {
			t.Errorf("%s: the old pair is not in use: %v", c.what, o.client)
		}
		if n := strings.Count(log.String(), "level=WARN"); n == 0 || !strings.Contains(log.String(), c.want) {
			t.Errorf("%s: log: %s", c.what, log)
		}
	}
	if good, bad := source.Rotations(); good != 0 || bad != 3 || strings.Count(log.String(), "level=WARN") != 3 {
		t.Errorf("%d rotations, %d refused; log: %s", good, bad, log)
	}

	f.write(t, "tls.crt", second.cert)
	f.write(t, "tls.key", second.key)

	serves(t, server, client, second)
	if problem := source.Problem(); problem != "" {
		t.Errorf("still says %q", problem)
	}
	for _, key := range []pair{first, second} {
		if strings.Contains(log.String(), string(key.key[40:80])) {
			t.Error("a key is in the log")
		}
	}
}

func TestThePairPutBackClearsTheProblem(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	first := ca.issue(t, leaf{})
	f := newFolder(t, first, ca)
	source := open(t, f.pairOnly())
	f.write(t, "tls.key", []byte("rubbish"))
	eventually(t, "the problem", func() bool { return source.Problem() != "" })

	f.write(t, "tls.key", first.key)

	eventually(t, "the end of it", func() bool { return source.Problem() == "" })
	if good, bad := source.Rotations(); good != 0 || bad != 1 {
		t.Errorf("%d rotations, %d refused", good, bad)
	}
}

func TestACertificateThatExpiresInUseIsAProblem(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	p := ca.issue(t, leaf{notAfter: time.Now().Add(2 * time.Second)})
	f := newFolder(t, p, ca)
	source := open(t, f.pairOnly())
	if problem := source.Problem(); problem != "" {
		t.Errorf("too early: %q", problem)
	}
	eventually(t, "the expiry", func() bool {
		return strings.Contains(source.Problem(), "expired on "+date(p.leaf.NotAfter))
	})
}

func TestRotationUnderLoadFailsNoHandshake(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	f := newFolder(t, ca.issue(t, leaf{}), ca)
	source := open(t, f.mutual())
	listener, err := tls.Listen("tcp", "127.0.0.1:0", source.Server("h2"))
	if err != nil {
		t.Fatal(err)
	}
	var running, callers sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				io.Copy(conn, conn)
			})
		}
	})
	stop := make(chan struct{})
	for range 4 {
		callers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				config := source.Client("h2")
				config.ServerName = "localhost"
				if err := echo(listener.Addr().String(), config); err != nil {
					t.Errorf("%s (%v)", Explain(err), err)
					return
				}
			}
		})
	}

	for n := range uint64(5) {
		p := ca.issue(t, leaf{})
		f.write(t, "tls.crt", p.cert)
		f.write(t, "tls.key", p.key)
		eventually(t, "a rotation", func() bool { good, _ := source.Rotations(); return good > n })
	}

	close(stop)
	callers.Wait() // whoever calls finds the listener open
	listener.Close()
	running.Wait()
}

func echo(address string, config *tls.Config) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	secure := tls.Client(conn, config)
	if _, err := secure.Write([]byte("x")); err != nil {
		return err
	}
	_, err = io.ReadFull(secure, make([]byte, 1))
	return err
}
