package email

import (
	"net/mail"
	"strings"
	"testing"
)

func TestAddressesThatAreTaken(t *testing.T) {
	for _, v := range []struct{ text, name, bare, path string }{
		{"ada@example.org", "", "ada@example.org", "<ada@example.org>"},
		{"  ada@example.org ", "", "ada@example.org", "<ada@example.org>"},
		{"<ada@example.org>", "", "ada@example.org", "<ada@example.org>"},
		{"Ada <ada@example.org>", "Ada", "ada@example.org", "<ada@example.org>"},
		{`"Lovelace, Ada" <ada@example.org>`, "Lovelace, Ada", "ada@example.org", "<ada@example.org>"},
		{"Zoë <zoe@example.org>", "Zoë", "zoe@example.org", "<zoe@example.org>"},
		{"=?utf-8?q?Zo=C3=AB?= <zoe@example.org>", "Zoë", "zoe@example.org", "<zoe@example.org>"},
		{"Ada.B+c@EXAMPLE.org", "", "Ada.B+c@example.org", "<Ada.B+c@example.org>"},
		{"ada@bücher.example", "", "ada@xn--bcher-kva.example", "<ada@xn--bcher-kva.example>"},
		{"ada@例え.テスト", "", "ada@xn--r8jz45g.xn--zckzah", "<ada@xn--r8jz45g.xn--zckzah>"},
		{`"ada b"@example.org`, "", "ada b@example.org", `<"ada b"@example.org>`},
		{`"a;b"@example.org`, "", "a;b@example.org", `<"a;b"@example.org>`},
		{"root@localhost", "", "root@localhost", "<root@localhost>"},
	} {
		a, err := parseAddress(v.text)

		if err != nil || a.name != v.name || a.bare() != v.bare || a.path() != v.path {
			t.Errorf("%s: %q %q %q, %v; want %q %q %q", v.text, a.name, a.bare(), a.path(), err, v.name, v.bare, v.path)
		}
	}
}

func TestAddressesThatAreRefused(t *testing.T) {
	for _, v := range []struct{ text, want string }{
		{"", "is empty"},
		{" \t", "is empty"},
		{"ada", `"ada" is no address`},
		{"ada@", "is no address"},
		{"@example.org", "is no address"},
		{"ada@@example.org", "is no address"},
		{"ada@b@example.org", "is no address"},
		{"ada lovelace@example.org", "is no address"},
		{"ada@example.org, bob@example.org", `has a ',' outside of quotes`},
		{"ada@example.org; bob@example.org", `has a ';'`},
		{"friends: ada@example.org;", `has a ':'`},
		{"ada@example.org (Ada)", `has a '('`},
		{"ada@[192.0.2.1]", `has a '['`},
		{"ada@example.org\r\nBcc: eve@example.org", "has a line break, as its byte 16"},
		{"ada@example.org\nX: y", "has a line break"},
		{"\"ada\r\n\"@example.org", "has a line break"},
		{"Ada\x00 <ada@example.org>", "has the control character U+0000, as its byte 4"},
		{"Ada\u0085 <ada@example.org>", "has the control character U+0085"},
		{"Ada\u2028 <ada@example.org>", "has the control character U+2028"},
		{"Ada\xff <ada@example.org>", "is not UTF-8"},
		{"=?utf-8?q?Ada=0D=0ABcc?= <ada@example.org>", "has a name that has a line break"},
		{"zoë@example.org", `is not ASCII in front of the "@"`},
		{"ada@exa mple.org", "is no address"},
		{"ada@example.org.", "is no"},
		{"ada@exam_ple.org", `"exam_ple.org" is no domain`},
		{"ada@-example.org", `"-example.org" is no domain`},
		{strings.Repeat("a", 65) + "@example.org", "has 65 bytes in front of"},
		{"ada@" + strings.Repeat("a", 64) + ".org", "is no domain"},
		{"ada@" + strings.Repeat("a.", 130) + "org", "has 267 bytes; at most 254"},
		{strings.Repeat("a", 60) + "@" + strings.Repeat("abcdefghi.", 20) + "org", "has 264 bytes; at most 254"},
		{"A" + strings.Repeat("a", 512) + " <ada@example.org>", "at most 512"},
	} {
		_, err := parseAddress(v.text)

		if err == nil || !strings.Contains(err.Error(), v.want) {
			t.Errorf("%q: %v, want it to say %q", v.text, err, v.want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, seed := range []string{"ada@example.org", `"Lovelace, Ada" <"a b"@bücher.example>`, "=?utf-8?q?A=0D?= <a@b>", "g: a@b;", "\"\r\n\"@b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err != nil {
			return
		}
		for what, written := range map[string]string{"path": a.path(), "header": a.header().String()} {
			for _, c := range []byte(written) {
				if c < ' ' || c > '~' {
					t.Fatalf("%s of %q has the byte %#x: %q", what, text, c, written)
				}
			}
			again, err := mail.ParseAddress(written)
			if err != nil || again.Address != a.bare() {
				t.Fatalf("%s of %q, %q, is read as %v, %v", what, text, written, again, err)
			}
		}
	})
}
