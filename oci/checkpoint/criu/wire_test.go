package criu

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

// TestRequest holds what is sent to bytes made by protoc's own encoder for the same
// request.
func TestRequest(t *testing.T) {
	o := &Options{
		Images: 5, Pid: 4711, Work: 6, Log: "dump.log", LeaveRunning: true, TCPEstablished: true, ExtUnix: true, ShellJob: true, FileLocks: true,
		AutoDedup: true, LazyPages: true, TrackMemory: true, Parent: "../p", Root: "/r", Mode: Soft, Freeze: "/f",
		External: []string{"mnt[/a]:gantry-1", "net[4]:x"}, Inherit: []Inherited{{"pipe:[1]", 1}}, PageServer: &PageServer{"127.0.0.1", 99},
		EmptyNetwork: true, Status: 7, Restore: true, LSMProfile: "apparmor:x", LSMMountContext: "c",
	}
	got := hex.EncodeToString(request(reqDump, o))
	if got != wantRequest {
		t.Errorf("%s\nwant\n%s", got, wantRequest)
	}
	if got := hex.EncodeToString(notified(false)); got != "08061800" {
		t.Errorf("%s", got)
	}
}

func TestResponse(t *testing.T) {
	in, err := hex.DecodeString(answer)
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseResponse(in)
	if err != nil {
		t.Fatal(err)
	}
	want := response{typ: reqNotify, success: true, pid: 815, script: "pre-resume", errno: 22, message: "no", version: 31701, memTrack: true, lazyPages: true}
	if *r != want {
		t.Errorf("%+v", r)
	}
	for n := range in {
		if _, err := parseResponse(in[:n]); err != nil && !errors.Is(err, errWire) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for _, bad := range []string{"ff", "07", "0a", "0aff", "0aff01", "00", "0880808080808080808080", "0b", "09010203"} {
		t.Run(bad, func(t *testing.T) {
			b, _ := hex.DecodeString(bad)
			if _, err := parseResponse(b); !errors.Is(err, errWire) {
				t.Errorf("%s: %v", bad, err)
			}
		})
	}
}

func FuzzResponse(f *testing.F) {
	in, _ := hex.DecodeString(answer)
	f.Add(in)
	f.Add([]byte(notified(true)))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		_, _ = parseResponse(b)
		if !bytes.Equal(before, b) {
			t.Error("the input was changed")
		}
	})
}

const (
	// By google.golang.org/protobuf, with github.com/checkpoint-restore/go-criu's types.
	wantRequest = "0801129901080510e7241801200128013001380140014804520864756d702e6c6f675a0d0a093132372e302e302e31106360016a022f7272042e2e2f707801800101880106d00101da010c0a08706970653a5b315d1001900203aa02106d6e745b2f615d3a67616e7472792d31aa02086e65745b345d3a78b0028080808004e202022f66800301880307900301aa030a61707061726d6f723a78fa030163"
	answer      = "08061001220308ae062a0f0a0a7072652d726573756d6510af0638164204080110014a026e6f5209080310111a01782001"
)
