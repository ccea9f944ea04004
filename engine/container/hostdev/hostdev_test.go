package hostdev

import (
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

func TestMapped(t *testing.T) {
	got, err := Mapped([]container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/n", CgroupPermissions: "r"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Path != "/dev/n" || got[0].Major != 1 || got[0].Minor != 3 || got[0].Type != "c" || got[0].Access != "r" {
		t.Errorf("%+v", got)
	}
	for _, p := range []string{"/dev/none", "/etc/passwd"} {
		if _, err := Mapped([]container.DeviceMapping{{PathOnHost: p}}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if _, _, err := Block("/dev/null"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("/dev/null is no block device: %v", err)
	}
}

// What is no device is passed over; a directory that does not exist holds none.
func TestBelow(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "none")} {
		if got, err := Below(d); err != nil || len(got) != 0 {
			t.Errorf("%s: %v, %v", d, got, err)
		}
	}
}
