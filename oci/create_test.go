package oci_test

import (
	"testing"
)

func TestRunExitStatus(t *testing.T) {
	root := newRootfs(t)
	for _, c := range []struct {
		script string
		code   int
	}{{"true", 0}, {"false", 1}, {"exit 7", 7}, {"sh -c 'kill -9 $$'; exit $?", 137}} {
		b := newBox(root, "sh", "-c", c.script)
		if out, code := b.run(t); code != c.code {
			t.Errorf("%s: status %d, want %d (%s)", c.script, code, c.code, out)
		}
	}
}
