package seal

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

const (
	// version is the form and the cipher that doc.go describes.
	version = 1
	// MaxContent is the largest content, in bytes: four times the largest that
	// a task may have.
	MaxContent = 64 << 20
	// maxKeyID is the longest id of a key, in bytes.
	maxKeyID  = 32
	checkSize = 4
)

// ErrCorrupt is what Open returns for what can't be opened: it is not a sealed
// content, was changed, or was sealed for another task.
var ErrCorrupt = errors.New("the content was changed, cut short or belongs to another task")

// UnknownKeyError is what Open returns for a content that was sealed with a key
// that isn't there.
type UnknownKeyError struct {
	// ID is the key's id.
	ID string
}

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("the content was sealed with key %q, which is not configured: put its file back into the list of keys", e.ID)
}

// WrongKeyError is what Open returns for a content whose key is there by its id,
// but isn't the key that sealed it.
type WrongKeyError struct {
	// ID is the key's id.
	ID string
}

func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("the content was sealed with another key than the one that is now configured as %q: give a new key a new id, and put the old one back beside it", e.ID)
}

// Keys seal and open. They don't change, and are safe for concurrent use.
type Keys struct {
	first *key
	byID  map[string]*key
}

type key struct {
	// head is how everything that this key seals begins: up to the key check.
	head []byte
	xaes *xaes
}

// Key is a key and what it is called.
type Key struct {
	// ID is 1 to 32 letters, digits, ".", "_" or "-". It is stored in the clear
	// with what the key seals.
	ID string
	// Secret is the key: 256 random bits.
	Secret [keySize]byte
}

// New makes keys of which the first one seals.
func New(keys ...Key) (*Keys, error) {
	if len(keys) == 0 {
		return nil, errors.New("there is no key: the first one seals, so there must be one")
	}
	k := &Keys{byID: make(map[string]*key, len(keys))}
	for i := range keys {
		id := keys[i].ID
		if err := checkID(id); err != nil {
			return nil, err
		}
		if k.byID[id] != nil {
			return nil, fmt.Errorf("two keys have the id %q: each needs its own, since contents name their key by it", id)
		}
		k.byID[id] = newKey(id, &keys[i].Secret)
	}
	k.first = k.byID[keys[0].ID]
	return k, nil
}

func checkID(id string) error {
	if id == "" || len(id) > maxKeyID {
		return fmt.Errorf("key id %.40q must have 1 to %d characters", id, maxKeyID)
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf(`key id %q must consist of letters, digits, ".", "_" and "-"`, id)
		}
	}
	return nil
}

func newKey(id string, secret *[keySize]byte) *key {
	mac := hmac.New(sha256.New, secret[:])
	mac.Write([]byte("outrigger: which key this is"))
	head := append([]byte{version, byte(len(id))}, id...)
	return &key{
		head: append(head, mac.Sum(nil)[:checkSize]...),
		xaes: newXAES(secret),
	}
}

// Seal appends the sealed content to dst and returns the result. dst and content
// must not overlap. taskID is what Open has to be given again. The error is for
// a content above MaxContent.
func (k *Keys) Seal(dst []byte, taskID string, content []byte) ([]byte, error) {
	if len(content) > MaxContent {
		return nil, fmt.Errorf("the content has %d bytes; at most %d can be sealed", len(content), MaxContent)
	}
	head := k.first.head
	dst = slices.Grow(dst, len(head)+nonceSize+len(content)+tagSize)
	dst = append(dst, head...)
	dst = dst[:len(dst)+nonceSize]
	nonce := dst[len(dst)-nonceSize:]
	rand.Read(nonce) // ends the program rather than fail
	return k.first.xaes.seal(dst, nonce, content, additional(head, taskID)), nil
}

// Open appends the content to dst and returns the result, or ErrCorrupt, an
// *UnknownKeyError or a *WrongKeyError. dst and sealed must not overlap. What dst
// has beyond its length may be overwritten even if it fails.
func (k *Keys) Open(dst []byte, taskID string, sealed []byte) ([]byte, error) {
	id, rest, err := split(sealed)
	if err != nil {
		return nil, err
	}
	key := k.byID[id]
	if key == nil {
		return nil, &UnknownKeyError{ID: id}
	}
	head := sealed[:len(key.head)]
	if !slices.Equal(head, key.head) {
		return nil, &WrongKeyError{ID: id}
	}
	content, err := key.xaes.open(dst, rest[:nonceSize], rest[nonceSize:], additional(head, taskID))
	if err != nil {
		return nil, ErrCorrupt
	}
	return content, nil
}

// split takes a sealed content apart as far as that needs no key: its key's id,
// and what follows the key check.
func split(sealed []byte) (id string, rest []byte, err error) {
	if len(sealed) < 2 || sealed[0] != version {
		return "", nil, ErrCorrupt
	}
	length := int(sealed[1])
	head := 2 + length + checkSize
	if length > maxKeyID || len(sealed) < head+nonceSize+tagSize || len(sealed) > head+nonceSize+MaxContent+tagSize {
		return "", nil, ErrCorrupt
	}
	id = string(sealed[2 : 2+length])
	if checkID(id) != nil {
		return "", nil, ErrCorrupt
	}
	return id, sealed[head:], nil
}

// additional is what is authenticated beside the content. The head says its own
// length, so no other head and id make the same bytes.
func additional(head []byte, taskID string) []byte {
	data := make([]byte, 0, len(head)+len(taskID))
	return append(append(data, head...), taskID...)
}
