package relay

import (
	"bytes"
	"testing"

	"golang.org/x/net/http2"
)

func TestFramesReadByAnotherLibrary(t *testing.T) {
	var b []byte
	b = appendSettings(b, setting{settingInitialWindowSize, 1 << 20})
	b = appendSettingsAck(b)
	b = appendPing(b, true, []byte("12345678"))
	b = appendWindowUpdate(b, 3, 77)
	b = appendRSTStream(b, 5, codeCancel)
	b = appendGoAway(b, 9, codeEnhanceYourCalm, "why")
	b = appendHeaderBlock(b, 7, bytes.Repeat([]byte{0x82}, 40_000), true, minMaxFrameSize)
	framer := http2.NewFramer(nil, bytes.NewReader(b))
	var got []string
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			break
		}
		got = append(got, f.Header().Type.String())
	}
	want := "SETTINGS SETTINGS PING WINDOW_UPDATE RST_STREAM GOAWAY HEADERS CONTINUATION CONTINUATION"
	if s := string(bytes.Join(toBytes(got), []byte(" "))); s != want {
		t.Fatalf("got  %s\nwant %s", s, want)
	}
}

func toBytes(list []string) [][]byte {
	var out [][]byte
	for _, s := range list {
		out = append(out, []byte(s))
	}
	return out
}

// FuzzFrame: whatever the bytes, a frame lies within them, and parsing agrees
// with another library on where it ends.
func FuzzFrame(f *testing.F) {
	f.Add(appendPing(nil, false, []byte("12345678")))
	f.Add(appendGoAway(nil, 1, codeNo, "x"))
	f.Add([]byte{0, 0, 4, 0, 8, 0, 0, 0, 1, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		frame, n, err := parseFrame(in, minMaxFrameSize)
		if err != nil || n == 0 {
			return
		}
		if n > len(in) || len(frame.payload) != n-frameHeaderLen {
			t.Fatalf("a frame of %d bytes in %d", n, len(in))
		}
		if payload, err := frame.unpad(); err == nil && len(payload) > len(frame.payload) {
			t.Fatal("padding made the payload longer")
		}
	})
}
