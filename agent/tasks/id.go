package tasks

import (
	"errors"
	"strings"
)

// idLetters are Crockford's base32 in lower case: the digits and the letters
// without i, l, o and u, which are easily taken for others.
const idLetters = "0123456789abcdefghjkmnpqrstvwxyz"

// idLength is how many letters an id has: 65 bits, of which 63 are used.
const idLength = 13

// errID is for a text that is no id.
var errID = errors.New("want an id as a submit gave it: 13 digits and lower-case letters")

// FormatID returns the public id of a job: ids in the order of time are texts in
// the order of the alphabet.
func FormatID(id int64) string {
	var b [idLength]byte
	for i := idLength - 1; i >= 0; i-- {
		b[i] = idLetters[id&31]
		id >>= 5
	}
	return string(b[:])
}

// ParseID returns the job of a public id. It takes exactly what FormatID gives.
func ParseID(text string) (int64, error) {
	if len(text) != idLength || text[0] > '7' {
		return 0, errID
	}
	var id int64
	for i := range len(text) {
		digit := strings.IndexByte(idLetters, text[i])
		if digit < 0 {
			return 0, errID
		}
		id = id<<5 | int64(digit)
	}
	if id == 0 {
		return 0, errID
	}
	return id, nil
}
