package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// descriptors are the messages of a descriptor set, or what is wrong with it.
type descriptors struct {
	files *protoregistry.Files
	wrong string
}

// descriptors reads the set at path, which begins at the configuration's
// folder. It is read once, however many blocks name it.
func (f *file) descriptors(path string) *descriptors {
	path = f.beside(path)
	if d := f.sets[path]; d != nil {
		return d
	}
	if f.sets == nil {
		f.sets = make(map[string]*descriptors)
	}
	d := &descriptors{}
	files, err := readDescriptors(path)
	if err != nil {
		d.wrong = plainError(err)
	}
	d.files = files
	f.sets[path] = d
	return d
}

func readDescriptors(path string) (*protoregistry.Files, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, reason(err)
	}
	if !info.Mode().IsRegular() { // reading a pipe could take for ever
		return nil, errors.New("is no regular file")
	}
	content, err := os.Open(path)
	if err != nil {
		return nil, reason(err)
	}
	defer content.Close()
	data, err := io.ReadAll(io.LimitReader(content, maxFileSize+1))
	switch {
	case err != nil:
		return nil, reason(err)
	case len(data) > maxFileSize:
		return nil, fmt.Errorf("has more than %d MiB", maxFileSize>>20)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(data, set); err != nil {
		return nil, fmt.Errorf("is no descriptor set: %s", plainError(err))
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("is not whole: %s", plainError(err))
	}
	return files, nil
}

// reason is an error of the file system without the path, which the message
// names already.
func reason(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// message returns the message of that full name, or nil.
func (d *descriptors) message(name string) protoreflect.MessageDescriptor {
	found, err := d.files.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		return nil
	}
	message, _ := found.(protoreflect.MessageDescriptor)
	return message
}

// meant says which message was probably meant.
func (d *descriptors) meant(name string) string {
	const most = 8 // more are no help
	var names []string
	d.files.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		names = appendMessages(names, file.Messages())
		return true
	})
	slices.Sort(names)
	says := meant(name, names)
	if len(names) > most && strings.HasPrefix(says, "want ") {
		return fmt.Sprintf("want one of its %d messages", len(names))
	}
	return says
}

func appendMessages(names []string, messages protoreflect.MessageDescriptors) []string {
	for i := range messages.Len() {
		if m := messages.Get(i); !m.IsMapEntry() {
			names = appendMessages(append(names, string(m.FullName())), m.Messages())
		}
	}
	return names
}

// encode reads the JSON form of a message and writes its binary one, the same
// each time.
func (d *descriptors) encode(message protoreflect.MessageDescriptor, text string) (string, error) {
	m := dynamicpb.NewMessage(message)
	if err := (protojson.UnmarshalOptions{Resolver: dynamicpb.NewTypes(d.files)}).Unmarshal([]byte(text), m); err != nil {
		return "", err
	}
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return string(body), err
}

// plainError is what a library of protobuf says, without its name and without
// the spaces that it varies so that nobody compares its messages.
func plainError(err error) string {
	return strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: ")
}
