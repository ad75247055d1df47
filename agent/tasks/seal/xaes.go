package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

const (
	keySize   = 32
	nonceSize = 24
	tagSize   = 16
	// derivedFrom is how much of the nonce the key of a content comes from; the
	// rest is AES-GCM's nonce.
	derivedFrom = 12
)

// xaes is a key of XAES-256-GCM, ready to derive the keys of contents from. It
// is safe for concurrent use.
//
// The derivation is NIST SP 800-108r1's in counter mode over CMAC (SP 800-38B).
// Its input is one block, so a CMAC is one encryption of the block masked by
// the subkey K1.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte
}

func newXAES(key *[keySize]byte) *xaes {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	x := &xaes{block: block}
	block.Encrypt(x.k1[:], x.k1[:])
	// Doubling in GF(2^128): a shift to the left, and the field's polynomial in
	// place of the bit that left.
	var carry byte
	for i := len(x.k1) - 1; i >= 0; i-- {
		next := x.k1[i] >> 7
		x.k1[i] = x.k1[i]<<1 | carry
		carry = next
	}
	x.k1[len(x.k1)-1] ^= carry * 0x87
	return x
}

// derive is the AES-GCM under the key that belongs to a nonce.
func (x *xaes) derive(nonce []byte) cipher.AEAD {
	var key [keySize]byte
	for i := range 2 {
		half := key[i*aes.BlockSize : (i+1)*aes.BlockSize]
		half[1], half[2] = byte(i+1), 'X'
		copy(half[4:], nonce[:derivedFrom])
		subtle.XORBytes(half, half, x.k1[:])
		x.block.Encrypt(half, half)
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // a block of 16 bytes is what GCM takes
	}
	return aead
}

func (x *xaes) seal(dst, nonce, plaintext, additional []byte) []byte {
	return x.derive(nonce).Seal(dst, nonce[derivedFrom:], plaintext, additional)
}

func (x *xaes) open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	return x.derive(nonce).Open(dst, nonce[derivedFrom:], ciphertext, additional)
}
