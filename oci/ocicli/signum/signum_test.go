package signum

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]unix.Signal{
		"9": 9, "KILL": 9, "SIGKILL": 9, "kill": 9, "sigterm": 15, "0": 0, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMAX-2": 62, "RTMAX": 64, "64": 64,
		"": -1, "65": -1, "-1": -1, "NOPE": -1, "RTMIN-1": -1, "RTMIN+": -1, "RTMIN+99": -1, "RTMAX+1": -1, "RTMINx": -1, "SIGSIGKILL": -1,
	} {
		t.Run(in, func(t *testing.T) {
			got, err := Parse(in)
			if err != nil {
				got = -1
			}
			if got != want {
				t.Errorf("%q: %d, want %d", in, got, want)
			}
		})
	}
}
