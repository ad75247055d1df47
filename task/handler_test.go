package task

import (
	"context"
	"errors"
	"strings"
	"testing"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

type person struct {
	Name string `json:"name"`
}

func greet(_ context.Context, p person) (string, error) {
	if p.Name == "Bo" {
		return "", errors.New("Bo is not greeted")
	}
	return "hello " + p.Name, nil
}

func TestJSONReadsThePayloadAndWritesTheResult(t *testing.T) {
	result, err := JSON(greet)(t.Context(), leased("a", `{"name": "Ada"}`))
	if err != nil || string(result.GetData()) != `"hello Ada"` || result.GetContentType() != "application/json" {
		t.Errorf("got %v, %v", result, err)
	}
}

func TestJSONTakesAnEmptyPayloadForTheZeroValue(t *testing.T) {
	result, err := JSON(greet)(t.Context(), leased("a", ""))
	if err != nil || string(result.GetData()) != `"hello "` {
		t.Errorf("got %v, %v", result, err)
	}
}

func TestJSONReturnsTheFunctionsError(t *testing.T) {
	_, err := JSON(greet)(t.Context(), leased("a", `{"name": "Bo"}`))
	if f := failed(lease{"a", 1}, err); f.GetError() != "Bo is not greeted" || f.GetPermanent() {
		t.Errorf("it failed with %v", f)
	}
}

func TestJSONFailsForGoodWhatItCantReadOrWrite(t *testing.T) {
	for _, test := range []struct {
		handler       Handler
		payload, want string
	}{
		{JSON(greet), `{"name": 7}`, "the payload is no JSON for a task.person: "},
		{JSON(greet), `hello`, "the payload is no JSON for a task.person: "},
		{JSON(func(context.Context, person) (chan int, error) { return make(chan int), nil }), `{}`, "the result can't be written as JSON: "},
	} {
		_, err := test.handler(t.Context(), leased("a", test.payload))
		if f := failed(lease{"a", 1}, err); !f.GetPermanent() || !strings.HasPrefix(f.GetError(), test.want) {
			t.Errorf("%s: it failed with %v; want for good, %q", test.payload, f, test.want)
		}
	}
}

func TestMarkedErrorsAreStillWhatTheyWere(t *testing.T) {
	cause := errors.New("cause")
	for _, err := range []error{Permanent(cause), RetryAfter(1, cause)} {
		if !errors.Is(err, cause) {
			t.Errorf("%v is not its cause", err)
		}
	}
}

func FuzzClipped(f *testing.F) {
	for _, seed := range []string{"", "a", "bad \xff", strings.Repeat("ä", 5000), strings.Repeat("\xff", 5000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := &outriggerv1.FailTaskRequest{Lease: lease{"a", 1}.message(), Error: clipped(text)}
		if err := rules.Validate(r); err != nil {
			t.Errorf("the API does not take %q: %v", text, err)
		}
	})
}
