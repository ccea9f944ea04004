//go:build amd64 || arm64

package entry_test

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStart builds a program that begins at Start and looks which command lines have
// signals blocked.
func TestStart(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "mask")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-E github.com/gantry/gantry/oci/entry.Start", "-o", prog, "./testdata/mask")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	for line, want := range map[string]bool{
		"":                          false,
		"run x":                     true,
		"run":                       true,
		"exec x true":               true,
		"--root /r --log l run x":   true,
		"--root /r exec":            true,
		"create run2":               false,
		"runs execs executor ru":    false,
		"list -- x":                 false,
		"state":                     false,
		"-- sh run exec":            false,
		"shim --root /run run exec": false,
	} {
		out, err := exec.Command(prog, strings.Fields(line)...).Output()
		if got := strings.TrimSpace(string(out)) == "true"; err != nil || got != want {
			t.Errorf("%q: blocked %v, %v", line, got, err)
		}
	}
}
