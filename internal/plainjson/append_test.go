package plainjson

import (
	"encoding/json"
	"testing"
)

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "plain /path", `"\`, "<&>", "\x00\x1f\x7f", "é\u2028", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if got := AppendString([]byte("x"), s); err != nil || string(got) != "x"+string(want) {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	})
}
