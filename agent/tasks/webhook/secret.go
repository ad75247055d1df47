package webhook

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

const (
	secretPrefix = "whsec_"
	// minSecret and maxSecret bound a secret, in bytes, as the specification
	// does.
	minSecret, maxSecret = 24, 64
)

// Secret is what sender and receiver share. It doesn't print what it is.
type Secret struct{ key []byte }

// ParseSecret reads "whsec_" and the base64 of 24 to 64 random bytes. No error
// shows any of it.
func ParseSecret(text string) (Secret, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return Secret{}, fmt.Errorf("the secret must begin with %s", secretPrefix)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Secret{}, fmt.Errorf("what follows %s in the secret must be base64 of the standard alphabet, padded", secretPrefix)
	}
	if len(key) < minSecret || len(key) > maxSecret {
		return Secret{}, fmt.Errorf("the secret has %d bytes; it must have %d to %d", len(key), minSecret, maxSecret)
	}
	return Secret{key: key}, nil
}

// String hides the secret.
func (Secret) String() string { return secretPrefix + "…" }

// GoString hides the secret.
func (s Secret) GoString() string { return s.String() }

var errNoSecret = errors.New("there is no secret to sign with")
