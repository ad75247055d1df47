package webhook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// replace puts a file in place as careful programs do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	fresh := path + ".new"
	if err := os.WriteFile(fresh, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(fresh, path); err != nil {
		t.Fatal(err)
	}
}

func signatureBy(t *testing.T, files *Files) string {
	t.Helper()
	headers, err := files.Sign(vectorID, vectorTime, []byte(vectorBody))
	if err != nil {
		t.Fatal(err)
	}
	return headers.Signature
}

func TestFilesSign(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	replace(t, path, vectorSecret+"\n")
	files, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}

	if got := signatureBy(t, files); got != vectorSignature {
		t.Errorf("signature %s, want %s", got, vectorSignature)
	}
}

func TestChangedFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	replace(t, path, otherSecret)
	files, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := signatureBy(t, files); got == vectorSignature {
		t.Fatal("signed with a secret that isn't there yet")
	}

	replace(t, path, vectorSecret)

	if got := signatureBy(t, files); got != vectorSignature {
		t.Errorf("signature %s, want %s", got, vectorSignature)
	}
}

func TestEachFileSigns(t *testing.T) {
	dir := t.TempDir()
	young, old := filepath.Join(dir, "new"), filepath.Join(dir, "old")
	replace(t, young, otherSecret)
	replace(t, old, vectorSecret)
	files, err := Open(young, old)
	if err != nil {
		t.Fatal(err)
	}

	if got := strings.Split(signatureBy(t, files), " "); len(got) != 2 || got[1] != vectorSignature {
		t.Errorf("signatures %q, want two, the second %s", got, vectorSignature)
	}
}

func TestFileThatBreaksKeepsItsLastSecret(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, path string){
		"gone":          func(t *testing.T, path string) { os.Remove(path) },
		"not a secret":  func(t *testing.T, path string) { replace(t, path, "whsec_hunter2") },
		"empty":         func(t *testing.T, path string) { replace(t, path, "") },
		"far too large": func(t *testing.T, path string) { replace(t, path, strings.Repeat("x", 5000)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			replace(t, path, vectorSecret)
			files, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			spoil(t, path)

			if got := signatureBy(t, files); got != vectorSignature {
				t.Errorf("signature %s, want the last good secret's, %s", got, vectorSignature)
			}
			problem := files.Problem()
			if problem == nil || !strings.Contains(problem.Error(), path) || strings.Contains(problem.Error(), "hunter2") {
				t.Errorf("problem %v, want one that names %s and not what it holds", problem, path)
			}

			replace(t, path, otherSecret)
			if got := signatureBy(t, files); got == vectorSignature || files.Problem() != nil {
				t.Errorf("mended: signature %s, problem %v; want another one and none", got, files.Problem())
			}
		})
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	replace(t, bad, "hunter2")
	for _, v := range []struct {
		name  string
		paths []string
		want  string
	}{
		{"none", nil, "no secret"},
		{"not there", []string{filepath.Join(dir, "none")}, "none: it can't be read: no such file"},
		{"a folder", []string{dir}, "it is not a file"},
		{"no secret", []string{bad}, "bad: the secret must begin with whsec_"},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, err := Open(v.paths...)

			if err == nil || !strings.Contains(err.Error(), v.want) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%v, want it to say %q", err, v.want)
			}
		})
	}
}
