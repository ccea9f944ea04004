//go:build amd64 || arm64

package entry_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStart builds a program that begins at Start and looks which command lines have
// signals blocked, and which ones have it run from where nobody can change it.
func TestStart(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "mask")
	build := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-E github.com/gantry/gantry/oci/launch/entry.Start", "-o", prog, "./testdata/mask")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	const usual, blocked, protected = "false false false mask 50000 50000 A=1,B=2", "true true true gantry-runtime 1000000 50000 GOMAXPROCS=1,A=1,B=2", "false true true gantry-runtime 1000000 50000 GOMAXPROCS=1,A=1,B=2"
	for line, want := range map[string]string{
		"":                          usual,
		"run x":                     blocked,
		"run":                       blocked,
		"exec x true":               blocked,
		"--root /r --log l run x":   blocked,
		"--root /r exec":            blocked,
		"create":                    protected,
		"--root /r create x":        protected,
		"create x run":              protected,
		"create run2":               protected,
		"runs execs executor ru":    usual,
		"creat created crea":        usual,
		"list -- x":                 usual,
		"state":                     usual,
		"-- sh run exec create":     usual,
		"shim --root /run run exec": usual,
	} {
		t.Run(line, func(t *testing.T) {
			cmd := exec.Command(prog, strings.Fields(line)...)
			cmd.Env = []string{"A=1", "B=2"}
			out, err := cmd.CombinedOutput()
			got := strings.TrimSpace(string(out))
			if os.Getuid() != 0 {
				got, want = got[:4], want[:4]
			}
			if err != nil || got != want {
				t.Errorf("%q: %q, want %q, %v", line, got, want, err)
			}
		})
	}
	if os.Getuid() != 0 {
		return
	}
	// A name from the caller that looks like the kernel's for the second time does not make
	// it believe that it is protected: it is not executed again, and the kernel is asked.
	f, err := os.Open(prog)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := &exec.Cmd{Path: "/dev/fd/3", Args: []string{prog, "run"}, Env: []string{"A=1", "B=2"}, ExtraFiles: []*os.File{f}}
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "true false false gantry-runtime 1000000 50000 A=1,B=2\n" {
		t.Errorf("%q, %v", out, err)
	}
}
