package api

import (
	"encoding/base64"
	"sort"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const defaultPageSize = 100

// tokenMark begins what a token holds: no token is empty, and few texts that are
// not tokens are taken for one.
const tokenMark = "after:"

// page cuts a page out of items, which are in the order of their keys. A token
// holds the last key of the page before, so that what comes and goes between
// two pages neither hides nor repeats anything else.
func page[T any](items []T, key func(T) string, size int32, token string) (cut []T, next string, err error) {
	if size == 0 {
		size = defaultPageSize
	}
	if token != "" {
		decoded, err := base64.RawURLEncoding.DecodeString(token)
		last, ours := strings.CutPrefix(string(decoded), tokenMark)
		if err != nil || !ours {
			return nil, "", status.Error(codes.InvalidArgument, "page_token is not one that this API gave; use the next_page_token of the page before, or none")
		}
		items = items[sort.Search(len(items), func(i int) bool { return key(items[i]) > last }):]
	}
	if len(items) <= int(size) {
		return items, "", nil
	}
	items = items[:size]
	return items, base64.RawURLEncoding.EncodeToString([]byte(tokenMark + key(items[size-1]))), nil
}

// maxNamed bounds how many names a message lists.
const maxNamed = 20

// unknown is the answer to a name that nothing has. none says what it means
// that there is nothing of the kind at all.
func unknown(kind, name string, known []string, none string) error {
	if len(known) == 0 {
		return status.Errorf(codes.NotFound, "there is no %s %q: %s", kind, name, none)
	}
	more := ""
	if len(known) > maxNamed {
		more = " and " + strconv.Itoa(len(known)-maxNamed) + " more"
		known = known[:maxNamed]
	}
	return status.Errorf(codes.NotFound, "there is no %s %q; known: %s%s", kind, name, strings.Join(known, ", "), more)
}

// text makes a string fit for proto: method names are callers' bytes.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
