package checkpoint

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const hostTable = `22 28 0:21 / /proc rw - proc proc rw
23 28 0:22 / /sys rw - sysfs sysfs rw
25 28 0:24 / /run rw - tmpfs tmpfs rw
28 1 254:0 / / rw - ext4 /dev/vda rw
30 28 254:1 / /srv rw - ext4 /dev/vdb rw
31 30 254:2 /sub /srv/below rw - ext4 /dev/vdc rw
`

// TestRestoreCheck: mounts that images asked for and that are not the configuration's.
func TestRestoreCheck(t *testing.T) {
	w := &wanted{
		spec: &specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}}}},
		msg: &initmsg.Message{
			Root: initmsg.Root{Path: "/b/rootfs"}, MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
			Mounts: []initmsg.Mount{{Kind: initmsg.KindBind, Dest: "/data", Source: "/srv", Recursive: true}},
		},
		mounts: []hostMount{{id: "gantry-1", dest: "/data", source: "/srv", recursive: true}},
	}
	host := parseMountTable([]byte(hostTable))
	top := &mountEntry{dev: "254:0", root: "/b/rootfs", point: "/", fstype: "ext4"}
	for line, ok := range map[string]bool{
		`50 40 0:50 / /proc rw - proc proc rw`:                              true,
		`50 40 0:21 / /proc rw - proc proc rw`:                              false, // the host's, with a pid namespace of its own
		`50 40 0:22 / /sys rw - sysfs sysfs rw`:                             true,  // the host's network is the container's
		`50 40 0:51 / /tmp rw - tmpfs tmpfs rw`:                             true,
		`50 40 0:24 / /tmp rw - tmpfs tmpfs rw`:                             false, // the host's /run
		`50 40 254:0 /b/rootfs/etc /etc ro - ext4 /dev/vda rw`:              true,
		`50 40 254:0 /b/rootfs2 /etc ro - ext4 /dev/vda rw`:                 false,
		`50 40 254:0 /etc /etc ro - ext4 /dev/vda rw`:                       false,
		`50 40 254:1 / /mnt rw - ext4 /dev/vdb rw`:                          false,
		`50 40 254:2 /sub /data/below rw - ext4 /dev/vdc rw`:                true, // came with the recursive bind
		`50 40 254:2 / /data/below rw - ext4 /dev/vdc rw`:                   false,
		`50 40 254:2 /sub /data/other rw - ext4 /dev/vdc rw`:                false,
		`50 40 0:60 / /mnt rw - overlay overlay rw,lowerdir=/`:              false,
		`50 40 0:6 / /dev rw - devtmpfs devtmpfs rw`:                        false,
		`50 40 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw`:               false,
		`50 40 254:1 / /mnt rw master:1 - fuse.sshfs x rw`:                  false,
		`50 40 0:70 / /sys/kernel/debug rw - debugfs debugfs rw`:            false,
		`50 40 254:0 /b/rootfs/a\040b /a\040b ro shared:3 - ext4 /dev/v rw`: true,
	} {
		t.Run(line, func(t *testing.T) {
			m := parseMountTable([]byte(line))
			if len(m) != 1 {
				t.Fatal(line)
			}
			err := w.checkMount(-1, &m[0], top, host)
			if ok && err != nil || !ok && !errors.Is(err, errdefs.ErrPermissionDenied) {
				t.Errorf("%s: %v", line, err)
			}
		})
	}
	w.msg.Root.Readonly = true
	if err := w.checkMount(-1, top, top, host); err == nil {
		t.Error("a root that can be written")
	}
}

func TestRestoreStatus(t *testing.T) {
	const good = "Name:\tx\nPPid:\t7\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\nCapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
	w := &wanted{msg: &initmsg.Message{Process: initmsg.Process{Caps: initmsg.Caps{Bounding: 0x21}, NoNewPrivs: true, Seccomp: make([]byte, 8)}}}
	if err := w.checkStatus(good); err != nil {
		t.Error(err)
	}
	for i, c := range [][2]string{
		{"CapBnd:\t0000000000000020", "CapBnd:\t0000000000000120"},
		{"CapEff:\t0000000000000020", "CapEff:\t000001ffffffffff"},
		{"CapInh:\t0000000000000000", "CapInh:\t0000000000000002"},
		{"CapAmb:\t0000000000000000\n", ""},
		{"NoNewPrivs:\t1", "NoNewPrivs:\t0"},
		{"Seccomp:\t2", "Seccomp:\t0"},
		{"Seccomp:\t2\n", ""},
		{"CapPrm:\t0000000000000020", "CapPrm:\tx"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if err := w.checkStatus(strings.Replace(good, c[0], c[1], 1)); !errors.Is(err, errdefs.ErrPermissionDenied) {
				t.Errorf("%s: %v", c[1], err)
			}
		})
	}
}

// TestLostThread: what it does to its thread reaches nobody.
func TestLostThread(t *testing.T) {
	before, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		err := onLostThread(func() error {
			if unix.Gettid() == unix.Getpid() {
				t.Error("the first thread")
			}
			return unix.Unshare(unix.CLONE_FS)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := os.Readlink("/proc/self/ns/uts"); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

func FuzzMountTable(f *testing.F) {
	f.Add([]byte(hostTable))
	f.Add([]byte("1 2 3:4 / /a\\040b rw - x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range parseMountTable(b) {
			if m.id < 0 && len(m.options) == 0 {
				t.Errorf("%+v", m)
			}
		}
	})
}
