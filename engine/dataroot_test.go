package engine

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestDataRootLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "root")
	d, err := openDataRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openDataRoot(path)
	if !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "in use by another daemon (pid "+strconv.Itoa(os.Getpid())+")") {
		t.Errorf("second daemon: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o710 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if err := d.close(); err != nil {
		t.Error(err)
	}
	again, err := openDataRoot(path)
	if err != nil || again.id != d.id || len(d.id) != 36 {
		t.Fatalf("%v %+v", err, again)
	}
	again.close()
}

func TestForeignDataRootIsNotTouched(t *testing.T) {
	for _, sign := range []string{
		"image/overlay2/x", "overlay2/l/x", "containers/abc/config.v2.json", "engine-id", "buildkit/x", "libpod/bolt_state.db",
		"io.containerd.metadata.v1.bolt/meta.db", "overlay-layers/layers.json",
	} {
		t.Run(sign, func(t *testing.T) {
			path := t.TempDir()
			file := filepath.Join(path, sign)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				t.Fatal(err)
			}
			before := tree(t, path)
			_, err := openDataRoot(path)
			if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "holds the state of another engine") {
				t.Errorf("%s: %v", sign, err)
			}
			if after := tree(t, path); after != before {
				t.Errorf("%s: was touched: %s, now %s", sign, before, after)
			}
		})
	}
}

func tree(t *testing.T, root string) string {
	t.Helper()
	var all []string
	err := filepath.Walk(root, func(p string, st os.FileInfo, err error) error {
		if err == nil {
			all = append(all, p+" "+st.Mode().String()+" "+st.ModTime().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestNewerDataRootIsRefused(t *testing.T) {
	path := t.TempDir()
	for content, want := range map[string]string{`{"schema": 99}`: "newer version", `{`: "damaged"} {
		t.Run(content, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(path, markerName), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := openDataRoot(path); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", content, err)
			}
		})
	}
}

func TestPidfile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "d.pid")
	for _, stale := range []string{"", "4194305", "junk", "1"} {
		t.Run(stale, func(t *testing.T) { // pid 1 lives, but is another program
			if stale != "" {
				if err := os.WriteFile(path, []byte(stale), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := writePidfile(path); err != nil {
				t.Errorf("%q: %v", stale, err)
			}
		})
	}
	if err := removePidfile(path); err != nil {
		t.Error(err)
	}
	// Our own parent runs another program, so only a live dockerd stops the start:
	// the test binary itself, forked, would. Writing a foreign pid and removing must keep it.
	if err := os.WriteFile(path, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := removePidfile(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("removed somebody else's pidfile")
	}
}

// A daemon that was killed and that nobody has reaped yet must not keep the next
// from starting; one that lives must.
func TestPidfileOfZombie(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^$", "-test.count=1")
	cmd.Env = append(os.Environ(), "GANTRY_TEST_STAY=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "d.pid")
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := os.WriteFile(path, []byte(pid), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writePidfile(path); err == nil {
		t.Error("the pidfile of a living process of the same name was taken over")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	for {
		if _, state := nameAndState("/proc/" + pid + "/stat"); state == 'Z' {
			break
		}
	}
	if err := writePidfile(path); err != nil {
		t.Errorf("zombie: %v", err)
	}
	_ = cmd.Wait()
}

// TestMain lets a test start a copy of this program that stays until its input ends.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_TEST_STAY") != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	os.Exit(m.Run())
}
