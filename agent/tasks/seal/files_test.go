package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// someKey has bytes that are no text.
var someKey = secret(0xf0)

func keyFile(t *testing.T, content []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, content, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

func TestKeyFileForms(t *testing.T) {
	key := someKey[:]
	for _, v := range []struct {
		name    string
		content string
	}{
		{"raw", string(key)},
		{"hex", hex.EncodeToString(key)},
		{"hex in capitals, with a line break", strings.ToUpper(hex.EncodeToString(key)) + "\n"},
		{"base64", base64.StdEncoding.EncodeToString(key) + "\n"},
		{"base64 without padding", base64.RawStdEncoding.EncodeToString(key)},
		{"base64 of the URL alphabet", base64.URLEncoding.EncodeToString(key) + "\r\n"},
		{"base64 of the URL alphabet without padding", base64.RawURLEncoding.EncodeToString(key)},
	} {
		t.Run(v.name, func(t *testing.T) {
			keys, warnings, err := Load([]File{{ID: "k", Path: keyFile(t, []byte(v.content), 0o600)}})

			if err != nil || len(warnings) > 0 {
				t.Fatalf("%v, warnings %q", err, warnings)
			}
			sealed := mustSeal(t, newKeys(t, Key{ID: "k", Secret: someKey}), "task-1", "hello")
			if content, err := keys.Open(nil, "task-1", sealed); err != nil || string(content) != "hello" {
				t.Errorf("what the same key sealed: %q, %v", content, err)
			}
		})
	}
}

func TestKeyFilesThatAreNone(t *testing.T) {
	key := someKey[:]
	for _, v := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "is empty"},
		{"white space", []byte(" \n"), "is empty"},
		{"raw, too short", key[:31], "holds 31 bytes that are neither"},
		{"raw, too long", append(bytes.Clone(key), 1), "holds 33 bytes that are neither"},
		{"hex of 16 bytes", []byte(hex.EncodeToString(key[:16]) + "\n"), "holds a key of 16 bytes; it must have 32"},
		{"hex of 16 bytes, which has 32 characters", []byte(hex.EncodeToString(key[:16])), "holds 32 characters of text"},
		{"base64 of 64 bytes", []byte(base64.StdEncoding.EncodeToString(append(key, key...))), "holds a key of 64 bytes"},
		{"a password", []byte("correct horse battery staple, ok"), "holds 32 characters of text"},
		{"zeros", make([]byte, 32), "holds one byte 32 times"},
		{"far too long", make([]byte, 5000), "more than 4096 bytes"},
	} {
		t.Run(v.name, func(t *testing.T) {
			path := keyFile(t, v.content, 0o600)

			_, _, err := Load([]File{{ID: "k", Path: path}})

			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Fatalf("%v, want it to say %q", err, v.want)
			}
			if want := `key "k": file ` + path; !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want it to name %s", err, want)
			}
			if text := strings.TrimSpace(string(v.content)); text != "" && strings.Contains(err.Error(), text) {
				t.Errorf("the error shows what the file holds: %v", err)
			}
		})
	}
}

func TestKeyFileThatIsNotThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none")

	_, _, err := Load([]File{{ID: "k", Path: path}})

	if want := path + " can't be read: no such file or directory"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestKeyFileThatIsAFolder(t *testing.T) {
	_, _, err := Load([]File{{ID: "k", Path: t.TempDir()}})

	if err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("%v, want it to say that it is not a file", err)
	}
}

func TestLooseModesWarn(t *testing.T) {
	for _, v := range []struct {
		mode os.FileMode
		want int
	}{{0o600, 0}, {0o400, 0}, {0o640, 1}, {0o644, 1}, {0o602, 1}} {
		path := keyFile(t, someKey[:], v.mode)

		_, warnings, err := Load([]File{{ID: "k", Path: path}})

		if err != nil || len(warnings) != v.want {
			t.Errorf("mode %04o: %v, warnings %q; want %d of them", v.mode, err, warnings, v.want)
		}
		for _, warning := range warnings {
			if !strings.Contains(warning, path) || !strings.Contains(warning, "0600") {
				t.Errorf("mode %04o: %q, want it to name %s and 0600", v.mode, warning, path)
			}
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(someKey[:])
	f.Add([]byte(hex.EncodeToString(someKey[:]) + "\n"))
	f.Add([]byte(base64.StdEncoding.EncodeToString(someKey[:])))
	f.Add([]byte("====\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := parseKey(data)
		if err != nil {
			if key != [keySize]byte{} {
				t.Fatalf("key %x beside %v", key, err)
			}
			return
		}
		for _, form := range [][]byte{
			[]byte(hex.EncodeToString(key[:])),
			[]byte(base64.StdEncoding.EncodeToString(key[:]) + "\n"),
		} {
			if again, err := parseKey(form); err != nil || again != key {
				t.Fatalf("%s: %x, %v; want %x", form, again, err, key)
			}
		}
	})
}
