package policy

import "testing"

func TestARefusalInMidCallSaysHowFarItCame(t *testing.T) {
	for _, test := range []struct {
		call Call
		want string
	}{
		{Call{}, "no way"},
		{Call{sent: 1}, "no way (after 1 failed attempt)"},
		{Call{sent: 2}, "no way (after 2 failed attempts)"},
	} {
		if got := test.call.sofar("no way"); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
