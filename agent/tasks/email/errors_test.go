package email

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

func TestEnhancedCodes(t *testing.T) {
	for _, v := range []struct {
		code           int
		msg            string
		enhanced, text string
	}{
		{550, "5.1.1 No such user", "5.1.1", "No such user"},
		{550, "5.1.1", "5.1.1", ""},
		{550, "5.1.1 One\n5.1.1 Two", "5.1.1", "One Two"},
		{450, "4.7.100 Later", "4.7.100", "Later"},
		{550, "No such user", "", "No such user"},
		{550, "4.1.1 Odd", "", "4.1.1 Odd"},
		{550, "5.1 Short", "", "5.1 Short"},
		{550, "5.1.1000 Long", "", "5.1.1000 Long"},
		{550, "5.1.x Odd", "", "5.1.x Odd"},
		{550, "5.+1.1 Odd", "", "5.+1.1 Odd"},
		{550, "", "", ""},
		{550, "a\x1b[31m\r\nb\u0085c", "", "a [31m b c"},
	} {
		if enhanced, text := splitEnhanced(v.code, v.msg); enhanced != v.enhanced || text != v.text {
			t.Errorf("%d %q: %q %q, want %q %q", v.code, v.msg, enhanced, text, v.enhanced, v.text)
		}
	}
}

func TestServersWordsAreBounded(t *testing.T) {
	if got := oneLine(strings.Repeat("ä", 10_000)); len(got) > 310 || !strings.HasSuffix(got, "…") {
		t.Errorf("%d bytes", len(got))
	}
}

func TestPlainWords(t *testing.T) {
	for _, v := range []struct {
		err  error
		want string
	}{
		{context.Canceled, "the attempt was cancelled"},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), "the attempt's time was up"},
		{&net.DNSError{Name: "a.example", IsNotFound: true}, "there is no host a.example"},
		{&net.DNSError{Name: "a.example", Err: "server misbehaving"}, "the name a.example can't be resolved: server misbehaving"},
		{errors.New("a\r\nb"), "a b"},
	} {
		if got := plain(v.err); got != v.want {
			t.Errorf("%v: %q, want %q", v.err, got, v.want)
		}
	}
}

func FuzzReply(f *testing.F) {
	f.Add(550, "5.1.1 No\n5.1.1 such user")
	f.Add(421, "\x00\xff")
	f.Fuzz(func(t *testing.T, code int, msg string) {
		enhanced, text := splitEnhanced(code, msg)
		if enhanced != "" && !isEnhanced(enhanced) {
			t.Fatalf("code %q", enhanced)
		}
		if strings.ContainsAny(text, "\r\n\x00\x1b") || len(text) > 310 {
			t.Fatalf("text %q", text)
		}
	})
}
