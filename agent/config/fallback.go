package config

import (
	"encoding/base64"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// answers reports whether a block says what is answered. The four fields are
// one answer: they exclude each other, so that half of an inherited one would
// make most overrides contradict it.
func answers(m *configv1.Fallback) bool {
	return m != nil && (m.Code != nil || m.Message != nil || m.Json != nil || m.Base64 != nil)
}

// forgetAnswer makes room for another one.
func forgetAnswer(m *configv1.Fallback) {
	if m != nil {
		m.Code, m.Message, m.Json, m.Base64 = nil, nil, nil, nil
	}
}

// fallbackPolicy makes plain values of what a level writes (own) and inherits
// (whole): the message is encoded here, once. None written: no fallback.
func (f *file) fallbackPolicy(path string, own, whole *configv1.Fallback) policy.FallbackPolicy {
	if whole == nil {
		return policy.FallbackPolicy{}
	}
	p := policy.FallbackPolicy{Enabled: true, Message: whole.GetMessage(), Mode: mode(whole.GetMode())}
	if c, ok := policy.ParseCode(whole.GetCode()); ok {
		p.Code = c
	}
	tell := f.refuse
	if own == nil {
		tell = func(string, string, ...any) {} // the level that wrote it is told
	}
	switch {
	case p.Mode == policy.Off || p.Code != policy.OK:
	case whole.Json != nil:
		p.Body = f.fromJSON(path, whole, tell)
	case whole.Base64 != nil:
		body, err := base64.StdEncoding.DecodeString(whole.GetBase64())
		if err != nil {
			tell(path+".base64", "%v; want the encoded message in base64, with padding", err)
		}
		p.Body = string(body)
	}
	if own != nil {
		f.checkFallback(path, own, whole, p)
	}
	return p
}

// fromJSON encodes the message that a block gives as JSON.
func (f *file) fromJSON(path string, m *configv1.Fallback, tell func(path, format string, args ...any)) string {
	if m.DescriptorSet == nil {
		tell(path+".descriptor_set", "is missing; want the file that describes the message of json, such as descriptor_set: greeter.binpb")
	}
	if m.MessageType == nil {
		tell(path+".message_type", "is missing; want the full name of the message of json, such as message_type: helloworld.HelloReply")
	}
	if m.DescriptorSet == nil || m.MessageType == nil {
		return ""
	}
	d := f.descriptors(m.GetDescriptorSet())
	if d.wrong != "" {
		tell(path+".descriptor_set", "%q: %s; want what buf build -o or protoc --include_imports --descriptor_set_out writes", m.GetDescriptorSet(), d.wrong)
		return ""
	}
	message := d.message(m.GetMessageType())
	if message == nil {
		tell(path+".message_type", "%q is no message of %s; %s", m.GetMessageType(), m.GetDescriptorSet(), d.meant(m.GetMessageType()))
		return ""
	}
	body, err := d.encode(message, m.GetJson())
	if err != nil {
		tell(path+".json", "is no %s: %s", m.GetMessageType(), plainError(err))
	}
	return body
}

// checkFallback refuses answers that contradict themselves, and blocks without
// one.
func (f *file) checkFallback(path string, own, whole *configv1.Fallback, p policy.FallbackPolicy) {
	const okAlone = "goes with code: OK alone, and here it is %s; leave it out"
	switch {
	case p.Code != policy.OK && own.Json != nil:
		f.refuseTogether(path+".json", okAlone, p.Code)
	case p.Code != policy.OK && own.Base64 != nil:
		f.refuseTogether(path+".base64", okAlone, p.Code)
	case own.Json != nil && own.Base64 != nil:
		f.refuseTogether(path+".base64", "is the message, and so is json; want one of them")
	case p.Code == policy.OK && own.GetMessage() != "":
		f.refuseTogether(path+".message", "is for a code other than OK; leave it out, or write the code")
	case p.Code == policy.OK && whole.Json == nil && whole.Base64 == nil && p.Mode != policy.Off:
		f.refuse(path, "has no answer; want json or base64, a code other than OK, or mode: OFF")
	case whole.Json == nil && p.Mode != policy.Off && own.DescriptorSet != nil:
		f.refuseTogether(path+".descriptor_set", "is for json, and there is none; leave it out")
	case whole.Json == nil && p.Mode != policy.Off && own.MessageType != nil:
		f.refuseTogether(path+".message_type", "is for json, and there is none; leave it out")
	}
}
