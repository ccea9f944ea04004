package validate

import "testing"

func TestDetachKeys(t *testing.T) {
	for in, want := range map[string]string{"": "\x10\x11", "ctrl-a,x": "\x01x", "ctrl-@,ctrl-[,ctrl-_": "\x00\x1b\x1f", "DEL": "\x7f"} {
		t.Run(in, func(t *testing.T) {
			if got, err := DetachKeys(in); err != nil || string(got) != want {
				t.Errorf("%q: %q %v", in, got, err)
			}
		})
	}
	for _, in := range []string{"ctrl-", "ctrl-1", "ctrl-A", "ctrl-Z", "ab", ",", "ctrl-é"} {
		t.Run(in, func(t *testing.T) {
			if got, err := DetachKeys(in); err == nil {
				t.Errorf("%q: %q", in, got)
			}
		})
	}
}

func TestSignal(t *testing.T) {
	for s, want := range map[string]int{"TERM": 15, "SIGKILL": 9, "hup": 1, "9": 9, "RTMIN+3": 37, "SIGRTMAX-1": 63, "SIGRTMIN": 34} {
		t.Run(s, func(t *testing.T) {
			if n, err := Signal(s); err != nil || n != want {
				t.Errorf("%s: %d %v", s, n, err)
			}
		})
	}
	for _, s := range []string{"", "0", "-1", "65", "FOO", "RTMIN-1", "RTMAX+1", "RTMIN+99"} {
		t.Run(s, func(t *testing.T) {
			if n, err := Signal(s); err == nil {
				t.Errorf("%q: %d", s, n)
			}
		})
	}
}
