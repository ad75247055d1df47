package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Names of the headers. HTTP/1 doesn't care for their case.
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const (
	// maxID is the longest id, in bytes.
	maxID = 255
	// maxSignatures is how many signatures a receiver looks at.
	maxSignatures = 32
	// Tolerance is how far the timestamp of a request may be from the
	// receiver's clock.
	Tolerance = 5 * time.Minute

	signatureVersion = "v1"
)

// What Verify says.
var (
	ErrHeaders   = errors.New("the request lacks webhook-id, webhook-timestamp or webhook-signature, or one of them is not well formed")
	ErrTooOld    = errors.New("the request's webhook-timestamp is more than 5 minutes ago")
	ErrTooNew    = errors.New("the request's webhook-timestamp is more than 5 minutes ahead")
	ErrSignature = errors.New("no signature of the request was made with a known secret: the body was changed, or the secret is another one")
)

// Headers are the values of the three headers.
type Headers struct{ ID, Timestamp, Signature string }

// Set writes the headers, over any that are there.
func (h Headers) Set(header http.Header) {
	header.Set(HeaderID, h.ID)
	header.Set(HeaderTimestamp, h.Timestamp)
	header.Set(HeaderSignature, h.Signature)
}

// Sign makes the headers for a request: a signature by each secret, in their
// order. id is 1 to 255 visible ASCII characters without a ".", which would end
// it within what is signed; at is the time of this attempt, in whole seconds.
func Sign(id string, at time.Time, body []byte, secrets ...Secret) (Headers, error) {
	if err := checkID(id); err != nil {
		return Headers{}, err
	}
	if at.Unix() <= 0 {
		return Headers{}, fmt.Errorf("the time %s is no time to sign: it must be after 1970", at.UTC().Format(time.RFC3339))
	}
	if len(secrets) == 0 {
		return Headers{}, errNoSecret
	}
	timestamp := strconv.FormatInt(at.Unix(), 10)
	signatures := make([]string, 0, len(secrets))
	for _, secret := range secrets {
		if len(secret.key) == 0 {
			return Headers{}, errNoSecret
		}
		sum := digest(secret, id, timestamp, body)
		signatures = append(signatures, signatureVersion+","+base64.StdEncoding.EncodeToString(sum))
	}
	return Headers{ID: id, Timestamp: timestamp, Signature: strings.Join(signatures, " ")}, nil
}

// Verify checks a request as its receiver: that it was signed with one of the
// secrets, and within Tolerance of now. A receiver has to remember webhook-id for
// that long to notice repetitions. It returns ErrHeaders, ErrTooOld, ErrTooNew or
// ErrSignature.
func Verify(header http.Header, body []byte, now time.Time, secrets ...Secret) error {
	id, timestamp := header.Get(HeaderID), header.Get(HeaderTimestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || seconds <= 0 || checkID(id) != nil || header.Get(HeaderSignature) == "" {
		return ErrHeaders
	}
	// Compared in seconds: durations end at 292 years, timestamps don't.
	const tolerance = int64(Tolerance / time.Second)
	switch {
	case seconds < now.Unix()-tolerance:
		return ErrTooOld
	case seconds > now.Unix()+tolerance:
		return ErrTooNew
	}
	sums := make([][]byte, 0, len(secrets))
	for _, secret := range secrets {
		if len(secret.key) > 0 { // anybody can sign with nothing
			sums = append(sums, digest(secret, id, timestamp, body))
		}
	}
	signatures := strings.SplitN(header.Get(HeaderSignature), " ", maxSignatures+1)
	for _, signature := range signatures[:min(len(signatures), maxSignatures)] {
		version, encoded, _ := strings.Cut(signature, ",")
		if version != signatureVersion {
			continue
		}
		got, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			continue
		}
		for _, sum := range sums {
			if hmac.Equal(got, sum) {
				return nil
			}
		}
	}
	return ErrSignature
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("the webhook's id %.40q must have 1 to %d characters", id, maxID)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' || c == '.' {
			return fmt.Errorf(`the webhook's id %q must consist of visible ASCII characters without "."`, id)
		}
	}
	return nil
}

// digest is the HMAC-SHA256 over "id.timestamp.body".
func digest(secret Secret, id, timestamp string, body []byte) []byte {
	mac := hmac.New(sha256.New, secret.key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return mac.Sum(nil)
}
