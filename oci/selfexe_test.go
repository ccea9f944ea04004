package oci_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/launch/selfexe"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestMain of this package has called selfexe.Run, as the shim does.
func TestRunSealed(t *testing.T) {
	must(t, selfexe.Run()) // returns where it is done
	b, err := os.ReadFile("/proc/self/comm")
	if err != nil || string(b) != "gantry-runtime\n" {
		t.Errorf("name %q %v", b, err)
	}
	if f, err := os.OpenFile("/proc/self/exe", os.O_WRONLY, 0); err == nil {
		f.Close()
		t.Error("the own executable can be opened for writing")
	}
	f, err := os.Open("/proc/self/exe")
	must(t, err)
	defer f.Close()
	const want = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || got&want != want {
		t.Errorf("seals %x %v", got, err)
	}
}

// TestExecInterpreterIsSelf: a script whose interpreter is /proc/self/exe executes
// what the starting process runs from. It is the sealed copy, however the exec
// starts (CVE-2019-5736).
func TestExecInterpreterIsSelf(t *testing.T) {
	needsStatic(t)
	root := newRootfs(t)
	must(t, os.WriteFile(filepath.Join(root, "bin/trap"), []byte("#!/proc/self/exe -test.v=true\n"), 0o755))
	p, b := running(t, root)
	for _, w := range ways {
		r, pw, err := os.Pipe()
		must(t, err)
		// "stay" has this test binary wait for the end of its input.
		e, err := oci.Exec(t.Context(), &oci.ExecOpts{
			ContainerID: b.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup, Fresh: w.fresh, Stdio: oci.Stdio{In: r},
			Process: &specs.Process{Args: []string{"trap"}, Cwd: "/", Env: []string{"PATH=/bin", "HOME=/", stay + "=1"}},
		})
		must(t, err)
		r.Close()
		if oci.SkippedInit(e) == w.fresh && oci.SysprogWorks() {
			t.Errorf("without init: %v", oci.SkippedInit(e))
		}
		f, err := os.OpenFile(fmt.Sprintf("/proc/%d/exe", e.Pid), os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, unix.ETXTBSY) && !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: open for writing: %v", w.name, err)
		}
		f, err = os.Open(fmt.Sprintf("/proc/%d/exe", e.Pid))
		must(t, err)
		if got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || got&unix.F_SEAL_WRITE == 0 {
			t.Errorf("%s: seals %x %v", w.name, got, err)
		}
		f.Close()
		pw.Close()
		if code := wait(t, e); code != 0 {
			t.Errorf("%s: status %d", w.name, code)
		}
	}
}
