package tasks

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Parts of a job that are sealed. Each opens as itself alone, and for its job alone.
const (
	partBody     = "body"
	partOutput   = "output"
	partProgress = "progress"
	partDigest   = "digest"
)

// plain begins content that is not sealed; what package seal makes begins with 1.
// So a store whose encryption was turned on later can still be read.
const plain = 0

// errSealed is for content that was sealed when encryption was still configured.
var errSealed = errors.New("it is encrypted, and the configuration has no tasks.store.encryption any more")

func sealed(s *Settings, id int64, part string, content []byte) ([]byte, error) {
	if s.Seal == nil {
		return append([]byte{plain}, content...), nil
	}
	return s.Seal.Seal(nil, FormatID(id)+"/"+part, content)
}

func opened(s *Settings, id int64, part string, content []byte) ([]byte, error) {
	switch {
	case len(content) == 0:
		return nil, nil
	case content[0] == plain:
		return content[1:], nil
	case s.Seal == nil:
		return nil, errSealed
	}
	return s.Seal.Open(nil, FormatID(id)+"/"+part, content)
}

// seal marshals a message as a part of a job.
func (e *Executor) seal(id int64, part string, m proto.Message) ([]byte, error) {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	return sealed(e.settings.Load(), id, part, b)
}

// open unmarshals what seal made.
func (e *Executor) open(id int64, part string, content []byte, into proto.Message) error {
	plain, err := opened(e.settings.Load(), id, part, content)
	if err == nil {
		err = proto.Unmarshal(plain, into)
	}
	if err != nil {
		return fmt.Errorf("the task's %s can't be read: %w", part, err)
	}
	return nil
}

// specOf opens a job's spec.
func (e *Executor) specOf(j *store.Job) (*outriggerv1.TaskSpec, error) {
	spec := &outriggerv1.TaskSpec{}
	return spec, e.open(j.ID, partBody, j.Body, spec)
}

// resultOf opens what came of a job; nil: nothing did.
func (e *Executor) resultOf(j *store.Job) (*outriggerv1.TaskResult, error) {
	if j.Output == nil {
		return nil, nil
	}
	result := &outriggerv1.TaskResult{}
	return result, e.open(j.ID, partOutput, j.Output, result)
}
