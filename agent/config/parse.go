package config

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"buf.build/go/protoyaml"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// maxFileSize bounds a configuration: far above any real one.
const maxFileSize = 16 << 20

// Load reads the file at path. The error is an *Error where the file was read
// and refused.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, data)
}

// readFile reads no more than a configuration can have, whatever path names.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFileSize {
		return nil, fmt.Errorf("%s has more than %d MiB; is it a configuration?", path, maxFileSize>>20)
	}
	return data, nil
}

// Parse reads a configuration's text; name is the file that it stands in, for
// errors and for the files that it names (which are read). The error is always an *Error, with every issue and not just the first.
func Parse(name string, data []byte) (*Config, error) {
	root, issue := readText(data)
	if issue != nil {
		return nil, newError(name, []Issue{*issue}, 0)
	}
	message := &configv1.Config{}
	f := &file{name: name, root: root, message: message.ProtoReflect().Descriptor()}
	if root != nil {
		// Each pass is silent about what an earlier one refused, so that one
		// mistake is one issue.
		f.shape(root, message.ProtoReflect().Descriptor(), "")
		f.decode(data, message)
		f.nextPass()
		f.rules(message)
		f.nextPass()
	}
	c := f.resolve(message)
	f.cross(c)
	if len(f.issues) > 0 {
		return nil, newError(name, f.issues, f.untold)
	}
	c.Digest = sha256.Sum256(data)
	return c, nil
}

// decode fills the message with what has the right shape. A reader that panics
// (fuzzing found texts for which this one did) must not take a running agent
// with it: the text is refused.
func (f *file) decode(data []byte, message *configv1.Config) {
	defer func() {
		if p := recover(); p != nil {
			f.refuse("", "the reader failed on this text (%v); please report it with the file", p)
		}
	}()
	err := protoyaml.UnmarshalOptions{CustomUnmarshaler: durations{}}.Unmarshal(data, message)
	if err != nil && len(f.issues) == 0 {
		// What shape lets pass can be decoded; should it not, it is still
		// refused and not half read.
		f.refuse("", "%v", err)
	}
}
