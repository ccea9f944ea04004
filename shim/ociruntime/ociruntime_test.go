package ociruntime_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/ocicli"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/gantry/gantry/shim/ociruntime/runtimetest"
)

// asRuntime in the environment makes the test binary our command line.
const asRuntime = "GANTRY_TEST_RUNTIME"

// The test binary is a container's init, a launcher and our own command line too.
func TestMain(m *testing.M) {
	ociinit.Main()
	ociruntime.Main()
	if len(os.Args) > 1 && os.Args[1] == asRuntime {
		os.Exit(ocicli.Main(os.Args[2:]))
	}
	if err := runtimetest.Setup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestBuiltin(t *testing.T) {
	runtimetest.Run(t, func(*testing.T) ociruntime.Runtime { return ociruntime.Of(nil, "") })
}

// TestGantry: our own command line, run as any other.
func TestGantry(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command(t, &ociruntime.Ref{Path: exe, Args: []string{asRuntime}})
}

func TestRunc(t *testing.T) { external(t, "runc") }

func TestCrun(t *testing.T) { external(t, "crun") }

func external(t *testing.T, name string) {
	t.Helper()
	path := find(name)
	if path == "" {
		t.Skipf("needs %s, in $PATH or unpacked below .cache", name)
	}
	if out, err := exec.CommandContext(t.Context(), path, "--version").CombinedOutput(); err != nil {
		t.Skipf("%s does not run here: %v: %s", path, err, out)
	}
	ref := &ociruntime.Ref{Path: path}
	if _, err := os.Stat("/sys/fs/cgroup/unified"); err == nil && name == "crun" {
		// It refuses a v2 hierarchy beside those of v1, so it does not see one.
		ref = &ociruntime.Ref{Path: "unshare", Args: []string{"-m", "--propagation", "private", "sh", "-c", `umount /sys/fs/cgroup/unified; exec "$0" "$@"`, path}}
	}
	command(t, ref)
}

func command(t *testing.T, ref *ociruntime.Ref) {
	t.Helper()
	runtimetest.Run(t, func(t *testing.T) ociruntime.Runtime { return ociruntime.Of(ref, filepath.Join(t.TempDir(), "rt")) })
}

// find looks for a runtime in $PATH and where the project's scripts put programs.
func find(name string) string {
	if p, err := exec.LookPath(name); err == nil {
		return p
	}
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	i := strings.LastIndex(dir, "/shim/")
	for _, p := range []string{".cache/tools/bin/", ".cache/ocirt/"} {
		p = filepath.Join(dir[:i], p, name)
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	return ""
}
