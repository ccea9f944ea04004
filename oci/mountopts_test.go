package oci_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seenMounts reads "options propagation" of the mount points from a mountinfo.
func seenMounts(mountinfo string, points ...string) (out []string) {
	peer := regexp.MustCompile(`:\d+`)
	for _, p := range points {
		got := "none"
		for l := range strings.Lines(mountinfo) {
			if f := strings.Fields(l); f[4] == p {
				tags, _, _ := strings.Cut(strings.Join(f[6:], " "), "- ")
				got = strings.TrimSpace(f[5] + " " + peer.ReplaceAllString(tags, ""))
			}
		}
		out = append(out, got)
	}
	return out
}

// TestMountOptions: what every option of a bind makes of the mount and of the one
// below it, as the kernel tells.
func TestMountOptions(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const inside = "GANTRY_TEST_MOUNT_OPTIONS"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestMountOptions$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	root := newRootfs(t)
	plain, strict := t.TempDir(), t.TempDir()
	for dir, flags := range map[string]uintptr{plain: 0, strict: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME} {
		must(t, unix.Mount("x", dir, "tmpfs", flags, ""))
		must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
		must(t, unix.Mount("x", dir+"/sub", "tmpfs", flags, ""))
	}
	t.Cleanup(func() { // before the directories are removed
		for _, dir := range []string{plain, strict} {
			must(t, unix.Unmount(dir, unix.MNT_DETACH))
		}
	})
	const def, all = "rw,relatime", "rw,nosuid,nodev,noexec,noatime,nodiratime"
	for _, c := range []struct{ src, opts, top, sub string }{
		{plain, "", def, def},
		{plain, "bind", def, "none"},
		{plain, "ro", "ro,relatime", def},
		{plain, "rro", "ro,relatime", "ro,relatime"},
		{plain, "rro rw", "ro,relatime", "ro,relatime"}, // recursive ones last, as with runc
		{plain, "rro rrw", def, def},
		{plain, "nosuid", "rw,nosuid,relatime", def},
		{plain, "rnosuid", "rw,nosuid,relatime", "rw,nosuid,relatime"},
		{plain, "nodev", "rw,nodev,relatime", def},
		{plain, "rnodev", "rw,nodev,relatime", "rw,nodev,relatime"},
		{plain, "noexec", "rw,noexec,relatime", def},
		{plain, "rnoexec", "rw,noexec,relatime", "rw,noexec,relatime"},
		{plain, "noatime", "rw,noatime", def},
		{plain, "rnoatime", "rw,noatime", "rw,noatime"},
		{plain, "strictatime", "rw", def},
		{plain, "rstrictatime", "rw", "rw"},
		{plain, "nodiratime", "rw,nodiratime,relatime", def},
		{plain, "rnodiratime", "rw,nodiratime,relatime", "rw,nodiratime,relatime"},
		{plain, "nosymfollow", "rw,relatime,nosymfollow", def},
		{plain, "rnosymfollow", "rw,relatime,nosymfollow", "rw,relatime,nosymfollow"},
		{plain, "nosymfollow symfollow", def, def},
		{plain, "rnosymfollow rsymfollow", def, def},
		{plain, "nosuid nodev noexec ro", "ro,nosuid,nodev,noexec,relatime", def},
		{plain, "private", def, def},
		{plain, "rprivate", def, def},
		{plain, "shared", def + " shared", def},
		{plain, "rshared", def + " shared", def + " shared"},
		{plain, "unbindable", def + " unbindable", def},
		{plain, "runbindable", def + " unbindable", def + " unbindable"},
		{plain, "rslave", def, def}, // of mounts that are private
		{strict, "", all, all},
		{strict, "suid", "rw,nodev,noexec,noatime,nodiratime", all},
		{strict, "rsuid", "rw,nodev,noexec,noatime,nodiratime", "rw,nodev,noexec,noatime,nodiratime"},
		{strict, "dev", "rw,nosuid,noexec,noatime,nodiratime", all},
		{strict, "rdev", "rw,nosuid,noexec,noatime,nodiratime", "rw,nosuid,noexec,noatime,nodiratime"},
		{strict, "exec", "rw,nosuid,nodev,noatime,nodiratime", all},
		{strict, "rexec", "rw,nosuid,nodev,noatime,nodiratime", "rw,nosuid,nodev,noatime,nodiratime"},
		{strict, "diratime", "rw,nosuid,nodev,noexec,noatime", all},
		{strict, "rdiratime", "rw,nosuid,nodev,noexec,noatime", "rw,nosuid,nodev,noexec,noatime"},
		{strict, "relatime", "rw,nosuid,nodev,noexec,nodiratime,relatime", all},
		{strict, "rrelatime", "rw,nosuid,nodev,noexec,nodiratime,relatime", "rw,nosuid,nodev,noexec,nodiratime,relatime"},
		{strict, "defaults async loud nomand noiversion norecurse", all, all},
	} {
		t.Run(c.src+" "+c.opts, func(t *testing.T) {
			b := newBox(root, "cat", "/proc/self/mountinfo")
			opts := strings.Fields(c.opts)
			if c.opts != "bind" {
				opts = append([]string{"rbind"}, opts...)
			}
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/m", Type: "bind", Source: c.src, Options: opts})
			out, code, err := b.tryRun(t)
			if got := seenMounts(out, "/m", "/m/sub"); err != nil || code != 0 || got[0] != c.top || got[1] != c.sub {
				t.Errorf("%s: %q, %d, %v; want %q and %q", c.opts, got, code, err, c.top, c.sub)
			}
		})
	}
}
