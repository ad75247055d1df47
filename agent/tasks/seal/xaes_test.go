package seal

import (
	"bytes"
	"crypto/sha3"
	"encoding/hex"
	"testing"
)

// The vectors are those of https://c2sp.org/XAES-256-GCM.
func TestXAESVectors(t *testing.T) {
	for _, v := range []struct {
		name       string
		key        byte
		additional string
		want       string
	}{
		{"the most significant bit of the subkey is 0", 0x01, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{"the most significant bit of the subkey is 1", 0x03, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		t.Run(v.name, func(t *testing.T) {
			x := newXAES((*[keySize]byte)(bytes.Repeat([]byte{v.key}, keySize)))

			sealed := x.seal(nil, []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), []byte("XAES-256-GCM"), []byte(v.additional))

			if got := hex.EncodeToString(sealed); got != v.want {
				t.Errorf("sealed %s, want %s", got, v.want)
			}
			if opened, err := x.open(nil, []byte("ABCDEFGHIJKLMNOPQRSTUVWX"), sealed, []byte(v.additional)); err != nil || string(opened) != "XAES-256-GCM" {
				t.Errorf("opened %q, %v", opened, err)
			}
		})
	}
}

// The specification's accumulated vector: ten thousand keys, nonces, contents
// and additional data of pseudo-random bytes and lengths, and a digest of what
// came of them.
func TestXAESAccumulated(t *testing.T) {
	source, digest := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		source.Read(b)
		return b
	}
	for range 10_000 {
		key := [keySize]byte(read(keySize))
		nonce := read(nonceSize)
		content := read(int(read(1)[0]))
		additional := read(int(read(1)[0]))
		x := newXAES(&key)
		sealed := x.seal(nil, nonce, content, additional)
		if opened, err := x.open(nil, nonce, sealed, additional); err != nil || !bytes.Equal(opened, content) {
			t.Fatalf("opened %x, %v; want %x", opened, err, content)
		}
		digest.Write(sealed)
	}
	sum := make([]byte, 32)
	digest.Read(sum)
	if got, want := hex.EncodeToString(sum), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}
