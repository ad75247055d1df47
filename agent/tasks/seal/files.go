package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxFileSize is above any form of a key.
const maxFileSize = 4096

// File is where a key is.
type File struct {
	// ID is the key's, as in Key.
	ID string
	// Path is a file of 32 bytes, or of their hex or base64 (standard or URL
	// alphabet, padded or not) with nothing but white space around it.
	Path string
}

// Load reads keys from files; the first one seals. The warnings name files that
// others than their owner may read or change.
func Load(files []File) (keys *Keys, warnings []string, err error) {
	list := make([]Key, 0, len(files))
	for _, file := range files {
		secret, warning, err := readKey(file.Path)
		if err != nil {
			return nil, nil, fmt.Errorf("key %q: file %s %w", file.ID, file.Path, err)
		}
		if warning != "" {
			warnings = append(warnings, fmt.Sprintf("key %q: file %s %s", file.ID, file.Path, warning))
		}
		list = append(list, Key{ID: file.ID, Secret: secret})
	}
	keys, err = New(list...)
	if err != nil {
		return nil, nil, err
	}
	return keys, warnings, nil
}

// readKey reads a key file. What it returns as a text goes on after the file's
// name.
func readKey(path string) (secret [keySize]byte, warning string, err error) {
	file, err := os.Open(path)
	if err != nil {
		return secret, "", unread(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return secret, "", unread(err)
	}
	if !info.Mode().IsRegular() {
		return secret, "", errors.New("is not a file")
	}
	if loose := info.Mode().Perm() & 0o077; loose != 0 {
		warning = fmt.Sprintf("has mode %04o: others than its owner may use it; set it to 0600", info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return secret, "", unread(err)
	}
	secret, err = parseKey(data)
	return secret, warning, err
}

func unread(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("can't be read: %w", err)
}

// parseKey reads a key in any of its forms. No error shows any of it.
func parseKey(data []byte) (secret [keySize]byte, err error) {
	raw, err := decodeKey(data)
	if err != nil {
		return secret, err
	}
	if len(raw) != keySize {
		return secret, fmt.Errorf("holds a key of %d bytes; it must have %d", len(raw), keySize)
	}
	if bytes.Count(raw, raw[:1]) == keySize {
		return secret, fmt.Errorf("holds one byte %d times, which is no key; make one with: openssl rand -hex 32", keySize)
	}
	return [keySize]byte(raw), nil
}

func decodeKey(data []byte) ([]byte, error) {
	if len(data) == keySize {
		// Random bytes are text once in 10^14 times, a password or the hex of a
		// shorter key always.
		if isText(data) {
			return nil, fmt.Errorf("holds %d characters of text, which is no key of %d random bytes; make one with: openssl rand -hex 32", keySize, keySize)
		}
		return data, nil
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("has more than %d bytes, so it is no key file", maxFileSize)
	}
	text := bytes.TrimSpace(data)
	if len(text) == 0 {
		return nil, errors.New("is empty")
	}
	if raw, err := hex.DecodeString(string(text)); err == nil {
		return raw, nil
	}
	unpadded := string(bytes.TrimRight(text, "="))
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if raw, err := encoding.Strict().DecodeString(unpadded); err == nil {
			return raw, nil
		}
	}
	return nil, fmt.Errorf("must hold %d bytes, or their hex or base64, and holds %d bytes that are neither", keySize, len(data))
}

func isText(data []byte) bool {
	for _, c := range data {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			return false
		}
	}
	return true
}
