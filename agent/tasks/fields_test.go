package tasks

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestFieldsAreFilled(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fields map[string]any
		want   string // proto JSON
		err    string
	}{
		{"a payload of a map", map[string]any{"app.payload": map[string]any{"a": int64(1)}}, `{"app": {"payload": {"data": "eyJhIjoxfQ==", "contentType": "application/json"}}}`, ""},
		{"a payload of bytes", map[string]any{"app.payload": []byte("x")}, `{"app": {"payload": {"data": "eA=="}}}`, ""},
		{"a part of a payload", map[string]any{"app.payload.data": "x"}, `{"app": {"payload": {"data": "eA=="}}}`, ""},
		{"the shorter path first", map[string]any{"app.payload.content_type": "text/plain", "app.payload": []byte("x")}, `{"app": {"payload": {"data": "eA==", "contentType": "text/plain"}}}`, ""},
		{"a list of addresses", map[string]any{"email.to": []any{"a@b.c", "d@e.f"}}, `{"email": {"to": ["a@b.c", "d@e.f"]}}`, ""},
		{"one address", map[string]any{"email.to": "a@b.c"}, `{"email": {"to": ["a@b.c"]}}`, ""},
		{"a whole mail", map[string]any{"email": map[string]any{"subject": "Hi", "to": []any{"a@b.c"}}}, `{"email": {"to": ["a@b.c"], "subject": "Hi"}}`, ""},
		{"attachments", map[string]any{"email.attachments": []any{map[string]any{"name": "a.txt", "content": "x"}}}, `{"email": {"attachments": [{"name": "a.txt", "content": "eA=="}]}}`, ""},
		{"headers of a map", map[string]any{"http.headers": map[string]any{"b": "2", "a": []any{"0", "1"}}}, `{"http": {"headers": [{"name": "a", "value": "0"}, {"name": "a", "value": "1"}, {"name": "b", "value": "2"}]}}`, ""},
		{"a body of JSON", map[string]any{"http.body": []any{int64(1), true, nil}}, `{"http": {"body": "WzEsdHJ1ZSxudWxsXQ=="}}`, ""},
		{"a message of text", map[string]any{"grpc.message": "x"}, `{"grpc": {"message": "eA=="}}`, ""},
		{"numbers", map[string]any{"priority": int64(3), "retry.max_attempts": 4.0}, `{"priority": 3, "retry": {"maxAttempts": 4}}`, ""},
		{"durations", map[string]any{"timeout": "1m30s", "retry.base": int64(2), "retry.max": 2.5}, `{"timeout": "90s", "retry": {"base": "2s", "max": "2.500s"}}`, ""},
		{"nothing", map[string]any{"tenant": nil, "email.to": nil}, `{"email": {}}`, ""},
		{"a number for a string", map[string]any{"tenant": int64(7)}, "", "tenant: it is a number; want a string"},
		{"a string for a number", map[string]any{"priority": "high"}, "", "priority: it is a string; want a whole number"},
		{"a number below zero", map[string]any{"priority": int64(-1)}, "", "priority: it is a number; want a whole number"},
		{"half a number", map[string]any{"priority": 1.5}, "", "priority: it is a number; want a whole number"},
		{"a bad duration", map[string]any{"timeout": "soon"}, "", `timeout: "soon" is no duration`},
		{"a duration below zero", map[string]any{"timeout": int64(-1)}, "", "timeout: it is a number"},
		{"a number in a list", map[string]any{"email.to": []any{"a", int64(1)}}, "", "email.to: [1]: it is a number; want a string"},
		{"a text for a message", map[string]any{"email": "x"}, "", "email: it is a string; want a map of fields"},
		{"an unknown field", map[string]any{"email.subjekt": "x"}, "", `email.subjekt: there is no field "subjekt"`},
		{"an unknown field in a map", map[string]any{"email": map[string]any{"subjekt": "x"}}, "", `email: subjekt: there is no field "subjekt"`},
		{"a field of a text", map[string]any{"tenant.name": "x"}, "", `"tenant" holds no fields`},
		{"a field of a list", map[string]any{"email.to.x": "x"}, "", `"to" holds no fields`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := &outriggerv1.TaskSpec{}
			err := fill(spec, tc.fields)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v, want %q", err, tc.err)
				}
				return
			}
			want := &outriggerv1.TaskSpec{}
			if e := protojson.Unmarshal([]byte(tc.want), want); e != nil {
				t.Fatal(e)
			}
			if err != nil || !proto.Equal(spec, want) {
				t.Errorf("%v, %v\nwant %v", spec, err, want)
			}
		})
	}
}

func FuzzFill(f *testing.F) {
	f.Add("app.payload", `{"a": [1, null]}`)
	f.Add("email.attachments", `[{"name": "a", "content": "b"}]`)
	f.Add("http.headers", `{"a": ["b"]}`)
	f.Add("retry.base", `1e300`)
	f.Add("chain.steps", `[{"task": {"priority": 1}}]`)
	f.Fuzz(func(t *testing.T, path, text string) {
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			return
		}
		spec := &outriggerv1.TaskSpec{}
		if fill(spec, map[string]any{path: value}) == nil {
			if _, err := findField(specDescriptor, path); err != nil {
				t.Errorf("%q was filled, and is no field: %v", path, err)
			}
		}
	})
}
