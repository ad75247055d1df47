package webhook

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"
)

// maxFileSize is above any secret and its white space.
const maxFileSize = 4096

// Files are secrets in files, one each, that are read again when they change. A
// file that is replaced by renaming another one over it is never seen half
// written. Safe for concurrent use.
type Files struct {
	mu      sync.Mutex
	files   []file
	secrets []Secret
	problem error
}

// file is a file as it was read last.
type file struct {
	path string
	info fs.FileInfo
}

// Open reads the files. While a secret is replaced name both of them, in the
// order in which requests are to be signed.
func Open(paths ...string) (*Files, error) {
	if len(paths) == 0 {
		return nil, errNoSecret
	}
	f := &Files{}
	for _, path := range paths {
		secret, info, err := readSecret(path)
		if err != nil {
			return nil, err
		}
		f.files = append(f.files, file{path, info})
		f.secrets = append(f.secrets, secret)
	}
	return f, nil
}

// Sign makes the headers for a request with what the files hold now; see Sign.
func (f *Files) Sign(id string, at time.Time, body []byte) (Headers, error) {
	return Sign(id, at, body, f.Secrets()...)
}

// Secrets is what the files hold now, in their order. In place of a file that
// can't be used since it changed stands what it held before, and Problem says
// why. The slice isn't written to afterwards.
func (f *Files) Secrets() []Secret {
	f.mu.Lock()
	defer f.mu.Unlock()
	var problems []error
	var fresh []Secret
	for i := range f.files {
		file := &f.files[i]
		info, err := os.Stat(file.path)
		if err == nil && same(info, file.info) {
			continue
		}
		secret, info, err := readSecret(file.path)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if fresh == nil {
			fresh = append(fresh, f.secrets...)
		}
		fresh[i], file.info = secret, info
	}
	if fresh != nil {
		f.secrets = fresh
	}
	f.problem = errors.Join(problems...)
	return f.secrets
}

// Problem is why a file couldn't be used when secrets were last asked for, nil
// when all could. It shows nothing of what they hold.
func (f *Files) Problem() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problem
}

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func readSecret(path string) (Secret, fs.FileInfo, error) {
	secret, info, err := func() (Secret, fs.FileInfo, error) {
		file, err := os.Open(path)
		if err != nil {
			return Secret{}, nil, unread(err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return Secret{}, nil, unread(err)
		}
		if !info.Mode().IsRegular() {
			return Secret{}, nil, errors.New("it is not a file")
		}
		data, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
		if err != nil {
			return Secret{}, nil, unread(err)
		}
		if len(data) > maxFileSize {
			return Secret{}, nil, fmt.Errorf("it has more than %d bytes", maxFileSize)
		}
		secret, err := ParseSecret(strings.TrimSpace(string(data)))
		return secret, info, err
	}()
	if err != nil {
		return Secret{}, nil, fmt.Errorf("webhook secret file %s: %w", path, err)
	}
	return secret, info, nil
}

func unread(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("it can't be read: %w", err)
}
