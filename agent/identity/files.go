package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// maxFileSize is far above any bundle; the system's has 0.2 MiB.
const maxFileSize = 4 << 20

// contents are the files as they were at one moment.
type contents struct{ cert, key, ca []byte }

// digest tells contents apart without keeping the key.
type digest [sha256.Size]byte

// openFiles reads the files and watches them, if there are any.
func (s *Source) openFiles(ctx context.Context) error {
	m, seen, err := s.readFiles(time.Now())
	if err != nil {
		return err
	}
	s.use(m)
	paths := s.paths()
	if len(paths) == 0 {
		return nil
	}
	w, err := newWatch(paths)
	if err != nil {
		return err
	}
	s.running.Go(func() {
		w.run(ctx, s, seen)
	})
	return nil
}

// paths are the files that the settings name.
func (s *Source) paths() []string {
	var paths []string
	for _, path := range []string{s.settings.CertFile, s.settings.KeyFile, s.settings.CAFile} {
		if path != "" {
			paths = append(paths, path)
		}
	}
	return paths
}

// readFiles reads and checks the files. The digest is of what was read, zero
// where that failed.
func (s *Source) readFiles(now time.Time) (*material, digest, error) {
	c, sum, err := s.readContents()
	if err != nil {
		return nil, digest{}, err
	}
	m := &material{}
	if s.settings.CertFile != "" {
		if m.certificate, err = parsePair(s.settings, c, now); err != nil {
			return nil, sum, err
		}
	}
	if s.settings.CAFile != "" {
		authorities, err := parseCertificates(c.ca)
		if err != nil {
			return nil, sum, fmt.Errorf("CA file %s: %w", s.settings.CAFile, err)
		}
		m.roots = x509.NewCertPool()
		for _, authority := range authorities {
			m.roots.AddCert(authority)
		}
	}
	return m, sum, nil
}

// readContents reads the files until two readings agree: they may be replaced
// in between.
func (s *Source) readContents() (contents, digest, error) {
	var c contents
	var last digest
	const tries = 5
	for try := range tries {
		for _, file := range []struct {
			kind, path string
			data       *[]byte
		}{
			{"certificate file", s.settings.CertFile, &c.cert},
			{"key file", s.settings.KeyFile, &c.key},
			{"CA file", s.settings.CAFile, &c.ca},
		} {
			if file.path == "" {
				continue
			}
			data, err := readFile(file.path)
			if err != nil {
				return contents{}, digest{}, fmt.Errorf("%s %s: %w", file.kind, file.path, err)
			}
			*file.data = data
		}
		sum := c.sum()
		if try > 0 && sum == last {
			break
		}
		last = sum
	}
	return c, last, nil
}

func (c contents) sum() digest {
	hash := sha256.New()
	for _, data := range [][]byte{c.cert, c.key, c.ca} {
		sum := sha256.Sum256(data)
		hash.Write(sum[:])
	}
	return digest(hash.Sum(nil))
}

// readFile reads a regular file; its errors say no path.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("does not exist")
	case err != nil:
		return nil, bare(err)
	case !info.Mode().IsRegular():
		return nil, errors.New("is not a file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, bare(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, bare(err)
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("has more than %d MiB", maxFileSize>>20)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, errors.New("is empty")
	}
	return data, nil
}

// bare takes the path off an error of the file system.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// parsePair reads the own certificate and its key, and checks that they can be
// used now. No error says anything of what a key file holds.
func parsePair(s Settings, c contents, now time.Time) (*tls.Certificate, error) {
	chain, err := parseCertificates(c.cert)
	if err != nil {
		return nil, fmt.Errorf("certificate file %s: %w", s.CertFile, err)
	}
	if err := checkKey(c.key); err != nil {
		return nil, fmt.Errorf("key file %s: %w", s.KeyFile, err)
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	switch {
	case err == nil:
	case strings.Contains(err.Error(), "does not match"):
		return nil, fmt.Errorf("key file %s: the key does not match the first certificate of %s (for %s)", s.KeyFile, s.CertFile, names(chain[0]))
	default:
		return nil, fmt.Errorf("key file %s: the key can't be read: it must be an RSA, ECDSA or Ed25519 key, PKCS#8, PKCS#1 or SEC 1", s.KeyFile)
	}
	if err := checkValidity(chain[0], now); err != nil {
		return nil, fmt.Errorf("certificate file %s: %w", s.CertFile, err)
	}
	pair.Leaf = chain[0]
	return &pair, nil
}

// parseCertificates reads all certificates of a PEM text; there is at least
// one.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	other := ""
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			other = block.Type
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in it is broken: %w", len(list)+1, err)
		}
		list = append(list, certificate)
	}
	switch {
	case len(list) > 0:
		return list, nil
	case other != "":
		return nil, fmt.Errorf("has no certificate in it, only %q", clip(other))
	}
	return nil, errors.New("is not PEM: it must have a block that begins with -----BEGIN CERTIFICATE-----")
}

// checkKey tells what tls.X509KeyPair would say less plainly.
func checkKey(text []byte) error {
	other := ""
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
			return errors.New("the key is encrypted; it must be without a passphrase")
		case block.Type == "PRIVATE KEY" || strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return nil
		}
		other = block.Type
	}
	if other != "" {
		return fmt.Errorf("has no private key in it, only %q", clip(other))
	}
	return errors.New("is not PEM: it must have a block that begins with -----BEGIN PRIVATE KEY-----")
}
