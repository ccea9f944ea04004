package shimd

import (
	"bytes"
	"testing"
)

func TestDetacher(t *testing.T) {
	for _, c := range []struct {
		name, keys string
		in         []string
		out        string
		detach     bool
	}{
		{"no keys", "", []string{"\x10\x11"}, "\x10\x11", false},
		{"one read", "\x10\x11", []string{"ab\x10\x11cd"}, "ab", true},
		{"two reads", "\x10\x11", []string{"ab\x10", "\x11cd"}, "ab", true},
		{"begun and dropped", "\x10\x11", []string{"a\x10", "b"}, "a\x10b", false},
		{"first key twice", "\x10\x11", []string{"\x10\x10\x11"}, "\x10", true},
		{"overlap", "aab", []string{"a", "a", "a", "b"}, "a", true},
		{"border", "abac", []string{"ababac!"}, "ab", true},
		{"held at the end", "\x10\x11", []string{"x\x10"}, "x\x10", false},
		{"single", "q", []string{"helloq"}, "hello", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDetacher([]byte(c.keys))
			var out []byte
			detach := false
			for _, s := range c.in {
				var b []byte
				if b, detach = d.feed([]byte(s)); true {
					out = append(out, b...)
				}
				if detach {
					break
				}
			}
			if !detach {
				out = append(out, d.rest()...)
			}
			if string(out) != c.out || detach != c.detach {
				t.Errorf("got %q, %t, want %q, %t", out, detach, c.out, c.detach)
			}
		})
	}
}

func FuzzDetacher(f *testing.F) {
	f.Add([]byte("\x10\x11"), []byte("ab\x10\x10\x11"), uint8(3))
	f.Add([]byte("aab"), []byte("aaaab"), uint8(1))
	f.Fuzz(func(t *testing.T, keys, in []byte, step uint8) {
		if len(keys) == 0 || len(keys) > 64 || step == 0 {
			return
		}
		want, _, found := bytes.Cut(in, keys)
		d := newDetacher(keys)
		var out []byte
		detach := false
		for rest := in; len(rest) > 0 && !detach; {
			n := min(int(step), len(rest))
			var b []byte
			b, detach = d.feed(rest[:n])
			out = append(out, b...)
			rest = rest[n:]
		}
		if !detach {
			out = append(out, d.rest()...)
		}
		if detach != found || !bytes.Equal(out, want) {
			t.Fatalf("keys %q in %q step %d: %q %t, want %q %t", keys, in, step, out, detach, want, found)
		}
	})
}
