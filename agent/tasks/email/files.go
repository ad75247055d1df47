package email

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

const (
	maxPassword = 4096
	maxRoots    = 4 << 20
)

// readPassword reads a password; one line break at its end is not part of it.
func readPassword(path string) (string, error) {
	data, err := readFile(path, maxPassword)
	if err != nil {
		return "", fmt.Errorf("password file %s: %w", path, err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	switch {
	case password == "":
		return "", fmt.Errorf("password file %s: it is empty", path)
	case checkText(password) != nil:
		return "", fmt.Errorf("password file %s: it must be one line of UTF-8 without control characters", path)
	}
	return password, nil
}

// readRoots reads a PEM file of certificates.
func readRoots(path string) (*x509.CertPool, error) {
	data, err := readFile(path, maxRoots)
	if err != nil {
		return nil, fmt.Errorf("CA file %s: %w", path, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("CA file %s: it has no certificate: a block that begins with -----BEGIN CERTIFICATE-----", path)
	}
	return roots, nil
}

// readFile reads a file of at most so many bytes. Its errors say no path.
func readFile(path string, most int64) ([]byte, error) {
	data, err := func() ([]byte, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return io.ReadAll(io.LimitReader(file, most+1))
	}()
	if err != nil {
		var pathError *fs.PathError
		if errors.As(err, &pathError) {
			err = pathError.Err
		}
		return nil, fmt.Errorf("it can't be read: %w", err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("it has more than %d bytes", most)
	}
	return data, nil
}
