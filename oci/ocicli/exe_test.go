package ocicli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestExecutableOfHeld: a process that the command line has made, by a fork or by init, and
// that waits for its start shows as its executable a file that nobody can change through
// that link, root of the host included; a script in the container whose interpreter is
// /proc/self/exe would execute it (CVE-2019-5736).
func TestExecutableOfHeld(t *testing.T) {
	for _, init := range []string{"", "1"} {
		t.Run(init, func(t *testing.T) {
			b := newBundle(t, "sleep", "1000")
			b.write()
			r := b.cmd(func(c *exec.Cmd) { c.Env = append(c.Env, byInit+"="+init) }, "create", "--bundle", b.dir, b.id)
			if r.code != 0 {
				t.Fatalf("%+v", r)
			}
			exe := "/proc/" + b.field("pid") + "/exe"
			cmdline, err := os.ReadFile("/proc/" + b.field("pid") + "/cmdline")
			if forked := string(cmdline) != "gantry-runtime\x00init\x00"; err != nil || forked != (init == "") {
				t.Errorf("by init %q: command line %q, %v", init, cmdline, err)
			}
			for what, err := range map[string]error{
				"access": unix.Access(exe, unix.W_OK),
				"chmod":  unix.Chmod(exe, 0o777),
				"xattr":  unix.Setxattr(exe, "user.x", []byte("y"), 0),
				"trunc":  unix.Truncate(exe, 0),
			} {
				if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ETXTBSY) {
					t.Errorf("by init %q: %s: %v", init, what, err)
				}
			}
			var st unix.Statfs_t
			must(t, unix.Statfs(exe, &st))
			if st.Flags&unix.ST_RDONLY == 0 {
				t.Errorf("by init %q: the mount is not read-only", init)
			}
			if err := unix.MountSetattr(unix.AT_FDCWD, exe, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err == nil {
				t.Errorf("by init %q: the mount was made writable", init)
			}
			if err := unix.Mount("", exe, "", unix.MS_REMOUNT|unix.MS_BIND, ""); err == nil {
				t.Errorf("by init %q: the mount was remounted", init)
			}
			if got := fmt.Sprint(b.status()); got != "created" {
				t.Errorf("status %s", got)
			}
			b.ok("delete", "--force", b.id)
		})
	}
}
