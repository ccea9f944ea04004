package filelimit_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/gantry/gantry/oci/launch/sysprog/filelimit"
	"golang.org/x/sys/unix"
)

// TestBeforeGo: this is what the process was started with, and not what Go made of it.
func TestBeforeGo(t *testing.T) {
	if os.Getenv("GANTRY_TEST_FILELIMIT") != "" {
		soft, ok := filelimit.Soft()
		fmt.Println("limit", soft, ok)
		return
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Max < 500 {
		t.Skip("needs a hard limit above 500")
	}
	if _, ok := filelimit.Soft(); !ok {
		t.Skip("not on this architecture")
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `ulimit -Sn 123 && exec "$0" -test.run='^TestBeforeGo$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "GANTRY_TEST_FILELIMIT=1")
	out, err := cmd.Output()
	if want := "limit 123 true\nPASS\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v", out, err)
	}
}
