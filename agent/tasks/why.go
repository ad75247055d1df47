package tasks

import (
	"errors"
	"strings"
	"unicode"
)

// ErrReplyTooLarge is for a call that was made and whose reply can't be kept.
var ErrReplyTooLarge = errors.New("the call was made, and its reply is larger than what may be kept (tasks.max_payload)")

// maxWhy is the longest reason that is kept, in bytes.
const maxWhy = 2048

// short makes a reason that somebody else gave fit to be kept and shown: a line of
// bounded length.
func short(why string) string {
	why = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(why, "\uFFFD"))
	if len(why) <= maxWhy {
		return why
	}
	return strings.ToValidUTF8(why[:maxWhy], "") + "…"
}
