package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outrigger-rpc/outrigger/policy"
)

const greeterTypes = "descriptor_set: testdata/greeter.binpb, message_type: helloworld.HelloReply"

// hi is the encoded HelloReply{message: "hi"}: field 1, two bytes.
const hi = "\x0a\x02hi"

func TestFallback(t *testing.T) {
	for text, want := range map[string]policy.FallbackPolicy{
		"":                                       {},
		"fallback: {base64: CgJoaQ==}":           {Enabled: true, Body: hi},
		"fallback: {code: OK, base64: CgJoaQ==}": {Enabled: true, Body: hi},
		`fallback: {base64: ""}`:                 {Enabled: true},
		`fallback: {json: '{"message":"hi"}', ` + greeterTypes + `}`:                        {Enabled: true, Body: hi},
		`fallback: {code: OK, message: "", json: '{"message":"hi"}', ` + greeterTypes + `}`: {Enabled: true, Body: hi},
		`fallback: {json: '{}', mode: OBSERVE, ` + greeterTypes + `}`:                       {Enabled: true, Mode: policy.Observe},
		"fallback: {code: NOT_FOUND}":                                                       {Enabled: true, Code: policy.NotFound},
		"fallback: {code: UNAVAILABLE, message: come back later}":                           {Enabled: true, Code: policy.Unavailable, Message: "come back later"},
		"fallback: {mode: OFF}":                                                             {Enabled: true, Mode: policy.Off},
		"fallback: {descriptor_set: nowhere.binpb, mode: OFF}":                              {Enabled: true, Mode: policy.Off},
	} {
		if got := served(t, text).Fallback; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

// TestAnAnswerIsInheritedWhole: code, message, json and base64 are one; what
// describes messages is inherited beside it.
func TestAnAnswerIsInheritedWhole(t *testing.T) {
	const json = `fallback: {json: '{"message":"hi"}', ` + greeterTypes + `}`
	for _, test := range []struct {
		name, defaults, service, method string
		want                            policy.FallbackPolicy
	}{
		{"as it is", "", json, "", policy.FallbackPolicy{Enabled: true, Body: hi}},
		{"with another mode", "", json, "fallback: {mode: OBSERVE}", policy.FallbackPolicy{Enabled: true, Body: hi, Mode: policy.Observe}},
		{"another message of the same type", "", json, `fallback: {json: '{"message":"ho"}'}`, policy.FallbackPolicy{Enabled: true, Body: "\x0a\x02ho"}},
		{"another type of the same set", "", json, `fallback: {json: '{"name":"ho"}', message_type: helloworld.HelloRequest}`, policy.FallbackPolicy{Enabled: true, Body: "\x0a\x02ho"}},
		{"base64 in place of json", "", json, "fallback: {base64: CgJobw==}", policy.FallbackPolicy{Enabled: true, Body: "\x0a\x02ho"}},
		{"a code in place of a message", "", json, "fallback: {code: NOT_FOUND, message: none}", policy.FallbackPolicy{Enabled: true, Code: policy.NotFound, Message: "none"}},
		{"a message in place of a code", "", "fallback: {code: NOT_FOUND, message: none}", `fallback: {base64: ""}`, policy.FallbackPolicy{Enabled: true}},
		{"types above, the message below", "fallback: {mode: OFF, " + greeterTypes + "}", "", `fallback: {mode: ENFORCE, json: '{"message":"hi"}'}`, policy.FallbackPolicy{Enabled: true, Body: hi}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := overridden(t, test.defaults, test.service, test.method).Fallback; got != test.want {
				t.Errorf("\ngot  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestEqualJSONMakesEqualPolicies(t *testing.T) {
	one := served(t, `fallback: {json: '{"message":"hi","at":"2026-01-02T03:04:05Z","labels":{"a":"1","b":"2","c":"3"}}', `+greeterTypes+`}`)
	for range 20 {
		other := served(t, `fallback: {json: '{"labels":{"c":"3","b":"2","a":"1"}, "at":"2026-01-02T03:04:05Z", "message":"hi"}', `+greeterTypes+`}`)
		if one.Fallback != other.Fallback || len(one.Fallback.Body) < 20 {
			t.Fatalf("got %+v and %+v", one.Fallback, other.Fallback)
		}
	}
}

func TestADescriptorSetBeginsAtTheConfigurationsFolder(t *testing.T) {
	folder := t.TempDir()
	set, err := os.ReadFile("testdata/greeter.binpb")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "c.yaml")
	for name, data := range map[string]string{
		path:                                   oneService + `    policy: {fallback: {json: '{"message":"hi"}', descriptor_set: greeter.binpb, message_type: helloworld.HelloReply}}` + "\n",
		filepath.Join(folder, "greeter.binpb"): string(set),
	} {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	c, err := Load(path)

	if err != nil || c.Services[0].Policy.Fallback.Body != hi {
		t.Errorf("got %+v, %v", c, err)
	}
}

// TestAHugeDescriptorSetIsNotRead: what a path names may be anything.
func TestAHugeDescriptorSetIsNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "huge.binpb")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxFileSize+1); err != nil {
		t.Fatal(err)
	}

	_, err := Parse("c.yaml", []byte(oneService+`    policy: {fallback: {json: "{}", descriptor_set: `+path+`, message_type: a.B}}`+"\n"))

	if err == nil || !strings.Contains(err.Error(), "has more than 16 MiB") {
		t.Errorf("got %v", err)
	}
}
