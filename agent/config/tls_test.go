package config

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFilesOfTLSBeginAtTheConfigurationsFolder, wherever the agent is started.
func TestFilesOfTLSBeginAtTheConfigurationsFolder(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "c.yaml")
	text := "api: {tls: {cert_file: tls/agent.pem, key_file: ../agent.key}}\n" + oneService + "    tls: {ca_file: /etc/ca.pem}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}

	c, err := Load(path)

	if err != nil {
		t.Fatal(err)
	}
	if got := c.Listeners.API.TLS; got.CertFile != filepath.Join(folder, "tls/agent.pem") || got.KeyFile != filepath.Join(filepath.Dir(folder), "agent.key") || got.CAFile != "" {
		t.Errorf("the listener's: %+v", got)
	}
	if got := c.Services[0].TLS; got.CAFile != "/etc/ca.pem" || got.CertFile != "" {
		t.Errorf("the service's: %+v", got)
	}
}
