package kubernetes

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Tokens that the API server knows.
const (
	adminToken = "the-test-itself"
	agentToken = "the-agent"
	agentUser  = "agent"
)

// binaries is where make test-kubernetes puts them.
func binary(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("OUTRIGGER_KUBERNETES")
	if dir == "" {
		dir = filepath.Join("..", "..", ".cache", "kubernetes")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Skipf("SKIPPED: no %s (make test-kubernetes builds it): %v", name, err)
	}
	return path
}

// cluster is an API server and its store. The API server can be stopped and
// started again at the same port, with what it had.
type cluster struct {
	t      *testing.T
	dir    string
	etcd   string // its URL
	port   string
	server *exec.Cmd
	log    bytes.Buffer
	admin  *kubernetes.Clientset
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// end stops a process: in order, then for good.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = cmd.Process.Kill()
		<-done
	}
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	etcd, _ := binary(t, "etcd"), binary(t, "kube-apiserver")
	c := &cluster{t: t, dir: t.TempDir(), port: freePort(t)}
	c.etcd = "http://127.0.0.1:" + freePort(t)
	peer := "http://127.0.0.1:" + freePort(t)
	store := exec.Command(etcd, "--data-dir", c.path("etcd"), "--listen-client-urls", c.etcd, "--advertise-client-urls", c.etcd, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer, "--unsafe-no-fsync", "--log-level", "error")
	if err := store.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(store) })
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c.write("sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	c.write("tokens.csv", fmt.Sprintf("%s,admin,1,system:masters\n%s,%s,2\n", adminToken, agentToken, agentUser))
	c.write("agent.conf", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://127.0.0.1:%s", insecure-skip-tls-verify: true}}]
users: [{name: agent, user: {token: %s}}]
contexts: [{name: test, context: {cluster: test, user: agent, namespace: shop}}]
current-context: test
`, c.port, agentToken))
	c.admin, err = kubernetes.NewForConfig(&rest.Config{Host: "https://127.0.0.1:" + c.port, BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		t.Fatal(err)
	}
	c.start()
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			log := c.log.Bytes()
			t.Logf("the API server's last words:\n%s", log[max(0, len(log)-4000):])
		}
	})
	return c
}

// start starts the API server and waits until it serves.
func (c *cluster) start() {
	c.t.Helper()
	c.server = exec.Command(binary(c.t, "kube-apiserver"), "--etcd-servers="+c.etcd, "--bind-address=127.0.0.1", "--secure-port="+c.port, "--cert-dir="+c.path("certs"),
		"--service-account-issuer=https://test", "--service-account-key-file="+c.path("sa.key"), "--service-account-signing-key-file="+c.path("sa.key"),
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24", "--disable-admission-plugins=ServiceAccount")
	c.server.Stderr = &c.log
	if err := c.server.Start(); err != nil {
		c.t.Fatal(err)
	}
	for range 1200 {
		if body, err := c.admin.RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background()); err == nil && string(body) == "ok" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.t.Fatal("the API server is not ready after 2 minutes")
}

func (c *cluster) stop() {
	if c.server != nil {
		end(c.server)
		c.server = nil
	}
}
