package id

import (
	"strings"
	"testing"
)

func TestNew(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		s := New()
		if !Valid(s) || seen[s] || allDecimal(s[:ShortLen]) {
			t.Fatal(s)
		}
		seen[s] = true
	}
}

func TestShortAndValid(t *testing.T) {
	long := strings.Repeat("ab", 32)
	for in, want := range map[string]string{"": "", "abc": "abc", long: "abababababab", "sha256:" + long: "abababababab", "sha256:a": "a"} {
		t.Run(in, func(t *testing.T) {
			if got := Short(in); got != want {
				t.Errorf("%q: %q", in, got)
			}
		})
	}
	for in, want := range map[string]bool{long: true, long[1:]: false, long + "a": false, strings.Repeat("AB", 32): false, strings.Repeat("../", 21) + "a": false} {
		t.Run(in, func(t *testing.T) {
			if Valid(in) != want {
				t.Errorf("%q: %v", in, !want)
			}
		})
	}
	if !allDecimal("012345678912") || allDecimal("01234567891a") {
		t.Error("allDecimal")
	}
}
