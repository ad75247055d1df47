package api

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
)

// idSize is the length of a permit's id.
const idSize = aes.BlockSize

// permitID says which permit is meant: whose it is, where its holder keeps it,
// and the how manieth of the holder's permits it is, from 1.
type permitID struct {
	holder, slot uint32
	serial       uint64
}

// seal makes ids out of permitIDs and back. An id is one AES block under a key
// that lives as long as the agent: to guess one that names a permit is to guess
// a block cipher's output, and one that is over can be told from one that never
// was without remembering either. Not safe for concurrent use.
type seal struct {
	block      cipher.Block
	plain, cut [idSize]byte // fields, so that they stay off the heap
}

// newKey returns the key of an agent's seals.
func newKey() []byte {
	key := make([]byte, 16)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the program instead
	return key
}

func newSeal(key []byte) *seal {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has a length that AES knows
	}
	return &seal{block: block}
}

// append appends the id.
func (s *seal) append(to []byte, id permitID) []byte {
	binary.LittleEndian.PutUint32(s.plain[0:], id.holder)
	binary.LittleEndian.PutUint32(s.plain[4:], id.slot)
	binary.LittleEndian.PutUint64(s.plain[8:], id.serial)
	s.block.Encrypt(s.cut[:], s.plain[:])
	return append(to, s.cut[:]...)
}

// open returns what the id says. That of an id that was never made is chance:
// the holder knows which of them it gave.
func (s *seal) open(id []byte) (permitID, bool) {
	if len(id) != idSize {
		return permitID{}, false
	}
	copy(s.cut[:], id)
	s.block.Decrypt(s.plain[:], s.cut[:])
	return permitID{
		holder: binary.LittleEndian.Uint32(s.plain[0:]),
		slot:   binary.LittleEndian.Uint32(s.plain[4:]),
		serial: binary.LittleEndian.Uint64(s.plain[8:]),
	}, true
}
