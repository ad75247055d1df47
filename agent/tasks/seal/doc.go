// Package seal encrypts what tasks contain and what came of them before it is
// stored.
//
//	keys, warnings, err := seal.Load([]seal.File{
//		{ID: "2027-01", Path: "/etc/outrigger/2027-01.key"}, // seals
//		{ID: "2026-07", Path: "/etc/outrigger/2026-07.key"}, // still opens
//	})
//	…
//	sealed, err := keys.Seal(nil, taskID, content)
//	content, err := keys.Open(nil, taskID, sealed)
//
// The first key seals and all of them open: to rotate, put a new key in front,
// and take the old one out when nothing that it sealed is left (KeyID tells).
//
// # Form
//
// A sealed content is
//
//	version 1 · length of the key's id · key's id · key check (4) · nonce (24) · ciphertext · tag (16)
//
// that is, 46 bytes and the key's id more than the content. The task's id is
// authenticated with it and not stored in it, so that a content that was moved
// to another task's row doesn't open. The key check is four bytes that depend on
// the key alone: they tell a key file that holds another key than it did from a
// content that was changed.
//
// # Cipher
//
// XAES-256-GCM (https://c2sp.org/XAES-256-GCM): AES-256-GCM under a key that is
// derived for each content from half of its random nonce of 192 bits. With plain
// AES-GCM, whose random nonces have 96 bits, a key must retire after 2^32
// contents, which a busy agent seals within days; here that bound is 2^80, far
// beyond any store, so nothing is counted and nothing wears out.
//
// What is hidden is the content, not its length, and not which key sealed it.
// Compression, if any, is the caller's, before.
package seal
