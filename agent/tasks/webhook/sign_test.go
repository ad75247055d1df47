package webhook

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What the specification's reference libraries test with.
const (
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorBody      = `{"test": 2432232314}`
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	otherSecret     = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

var vectorTime = time.Unix(1614265330, 0)

func parse(t testing.TB, text string) Secret {
	t.Helper()
	secret, err := ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func signed(t testing.TB, secrets ...Secret) http.Header {
	t.Helper()
	headers, err := Sign(vectorID, vectorTime, []byte(vectorBody), secrets...)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	headers.Set(header)
	return header
}

func TestSignVector(t *testing.T) {
	header := signed(t, parse(t, vectorSecret))

	for name, want := range map[string]string{
		"webhook-id":        vectorID,
		"webhook-timestamp": "1614265330",
		"webhook-signature": vectorSignature,
	} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestEachSecretSigns(t *testing.T) {
	old, young := parse(t, vectorSecret), parse(t, otherSecret)

	header := signed(t, young, old)

	signatures := strings.Split(header.Get(HeaderSignature), " ")
	if len(signatures) != 2 || signatures[1] != vectorSignature {
		t.Fatalf("signatures %q, want two, the second %s", signatures, vectorSignature)
	}
	for name, secret := range map[string]Secret{"old": old, "new": young} {
		if err := Verify(header, []byte(vectorBody), vectorTime, secret); err != nil {
			t.Errorf("a receiver that has the %s one: %v", name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	for _, v := range []struct {
		name   string
		change func(http.Header)
		want   error
	}{
		{"no id", func(h http.Header) { h.Del(HeaderID) }, ErrHeaders},
		{"no timestamp", func(h http.Header) { h.Del(HeaderTimestamp) }, ErrHeaders},
		{"no signature", func(h http.Header) { h.Del(HeaderSignature) }, ErrHeaders},
		{"a timestamp that is no number", func(h http.Header) { h.Set(HeaderTimestamp, "now") }, ErrHeaders},
		{"a negative timestamp", func(h http.Header) { h.Set(HeaderTimestamp, "-9223372036854775808") }, ErrHeaders},
		{"the last timestamp there is", func(h http.Header) { h.Set(HeaderTimestamp, "9223372036854775807") }, ErrTooNew},
		{"another id", func(h http.Header) { h.Set(HeaderID, "msg_other") }, ErrSignature},
		{"another time", func(h http.Header) { h.Set(HeaderTimestamp, "1614265331") }, ErrSignature},
		{"another signature", func(h http.Header) { h.Set(HeaderSignature, "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=") }, ErrSignature},
		{"half a signature", func(h http.Header) { h.Set(HeaderSignature, vectorSignature[:20]) }, ErrSignature},
		{"an empty signature", func(h http.Header) { h.Set(HeaderSignature, "v1,") }, ErrSignature},
		{"another version", func(h http.Header) { h.Set(HeaderSignature, "v2"+strings.TrimPrefix(vectorSignature, "v1")) }, ErrSignature},
		{"the right one after too many", func(h http.Header) {
			h.Set(HeaderSignature, strings.Repeat("v1,AAAA ", 32)+vectorSignature)
		}, ErrSignature},
	} {
		t.Run(v.name, func(t *testing.T) {
			header := signed(t, parse(t, vectorSecret))
			v.change(header)

			if err := Verify(header, []byte(vectorBody), vectorTime, parse(t, vectorSecret)); !errors.Is(err, v.want) {
				t.Errorf("%v, want %v", err, v.want)
			}
		})
	}
}

func TestVerifyFindsTheRightSignature(t *testing.T) {
	header := signed(t, parse(t, vectorSecret))
	header.Set(HeaderSignature, "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1a,abc v2,abc , "+vectorSignature)

	if err := Verify(header, []byte(vectorBody), vectorTime, parse(t, vectorSecret)); err != nil {
		t.Error(err)
	}
}

func TestVerifyTime(t *testing.T) {
	for _, v := range []struct {
		now  time.Duration
		want error
	}{
		{0, nil},
		{5 * time.Minute, nil},
		{5*time.Minute + time.Second, ErrTooOld},
		{-5 * time.Minute, nil},
		{-5*time.Minute - time.Second, ErrTooNew},
	} {
		err := Verify(signed(t, parse(t, vectorSecret)), []byte(vectorBody), vectorTime.Add(v.now), parse(t, vectorSecret))

		if !errors.Is(err, v.want) {
			t.Errorf("%v after it was signed: %v, want %v", v.now, err, v.want)
		}
	}
}

func TestVerifyWithoutASecretRefuses(t *testing.T) {
	for name, secrets := range map[string][]Secret{"none": nil, "the zero one": {{}}} {
		if err := Verify(signed(t, parse(t, vectorSecret)), []byte(vectorBody), vectorTime, secrets...); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	secret := parse(t, vectorSecret)
	for _, v := range []struct {
		name    string
		id      string
		at      time.Time
		secrets []Secret
		want    string
	}{
		{"no id", "", vectorTime, []Secret{secret}, "must have 1 to 255 characters"},
		{"long id", strings.Repeat("x", 256), vectorTime, []Secret{secret}, "must have 1 to 255 characters"},
		{"id with a full stop", "a.1", vectorTime, []Secret{secret}, `"a.1" must consist of visible ASCII`},
		{"id with a line break", "a\r\nx: y", vectorTime, []Secret{secret}, "must consist of visible ASCII"},
		{"id that is not ASCII", "é", vectorTime, []Secret{secret}, "must consist of visible ASCII"},
		{"no time", "a", time.Time{}, []Secret{secret}, "no time to sign"},
		{"no secret", "a", vectorTime, nil, "no secret"},
		{"the zero secret", "a", vectorTime, []Secret{{}}, "no secret"},
	} {
		t.Run(v.name, func(t *testing.T) {
			if _, err := Sign(v.id, v.at, nil, v.secrets...); err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("%v, want it to say %q", err, v.want)
			}
		})
	}
}

func TestSecretsAreChecked(t *testing.T) {
	for _, v := range []struct{ name, text, want string }{
		{"empty", "", "must begin with whsec_"},
		{"no prefix", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must begin with whsec_"},
		{"a private key", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must begin with whsec_"},
		{"not base64", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa%%", "must be base64"},
		{"23 bytes", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY=", "has 23 bytes; it must have 24 to 64"},
		{"65 bytes", "whsec_" + strings.Repeat("AAAA", 21) + "AAA=", "has 65 bytes; it must have 24 to 64"},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, err := ParseSecret(v.text)

			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Fatalf("%v, want it to say %q", err, v.want)
			}
			if secret := strings.TrimPrefix(v.text, "whsec_"); secret != "" && strings.Contains(err.Error(), secret) {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	secret := parse(t, vectorSecret)
	for _, text := range []string{fmt.Sprint(secret), fmt.Sprintf("%+v", secret), fmt.Sprintf("%#v", secret), fmt.Sprintf("%v", []Secret{secret})} {
		if strings.Trim(text, "[]") != "whsec_…" {
			t.Errorf("it prints as %s", text)
		}
	}
}

func TestWhatIsSignedVerifies(t *testing.T) {
	secrets := []Secret{parse(t, vectorSecret), parse(t, otherSecret)}
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[!-\-/-~]{1,40}`).Draw(t, "id")
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "body")
		by := rapid.SampledFrom(secrets).Draw(t, "secret")
		headers, err := Sign(id, vectorTime, body, by)
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{}
		headers.Set(header)

		if err := Verify(header, body, vectorTime, secrets...); err != nil {
			t.Fatal(err)
		}
		if err := Verify(header, append(body, 'x'), vectorTime, secrets...); !errors.Is(err, ErrSignature) {
			t.Fatalf("a longer body: %v, want ErrSignature", err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add(vectorID, "1614265330", vectorSignature, []byte(vectorBody))
	f.Add(vectorID, "1614265330", "v1, "+vectorSignature, []byte(vectorBody))
	f.Add("", "-1", ",,", []byte{})
	secret := parse(f, vectorSecret)
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		header := http.Header{}
		Headers{id, timestamp, signature}.Set(header)
		err := Verify(header, body, vectorTime, secret)
		if err == nil && (string(body) != vectorBody || id != vectorID || timestamp != "1614265330") {
			t.Fatalf("%q of %q at %q verifies with %q", body, id, timestamp, signature)
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	f.Add(vectorSecret)
	f.Add("whsec_")
	f.Fuzz(func(t *testing.T, text string) {
		if secret, err := ParseSecret(text); err == nil && (len(secret.key) < 24 || len(secret.key) > 64) {
			t.Fatalf("%q makes a secret of %d bytes", text, len(secret.key))
		}
	})
}
