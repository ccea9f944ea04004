package oci

import (
	"math"
	"os"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// refuse answers what this runtime does not do, so that nobody believes it done.
func refuse(s *specs.Spec) error {
	l := s.Linux
	if l.IntelRdt != nil {
		if !mounted("/sys/fs/resctrl", rdtMagic) {
			return errclass.NotImplemented("intelRdt is specified in config, but Intel RDT is not enabled on this machine (/sys/fs/resctrl is not mounted)")
		}
		return errclass.NotImplemented("intelRdt is specified in config, but this runtime does not support Intel RDT")
	}
	// A label of mounts alone is for a machine that has SELinux, and nothing elsewhere, as
	// with runc and crun: engines set it without asking.
	if s.Process != nil && s.Process.SelinuxLabel != "" && !seLinux() {
		return errclass.Invalid("selinux label is specified in config, but selinux is disabled or not supported")
	}
	if s.Process != nil && s.Process.ApparmorProfile != "" && s.Process.ApparmorProfile != "unconfined" && !appArmor() {
		return errclass.Invalid("apparmor profile %q is specified in config, but apparmor is not enabled on this machine", s.Process.ApparmorProfile)
	}
	return nil
}

// seLinux tells whether the kernel has it on.
func seLinux() bool { return mounted("/sys/fs/selinux", unix.SELINUX_MAGIC) }

// rdtMagic is the magic number of resctrl (linux/magic.h).
const rdtMagic = 0x7655821

// mounted tells whether dir is a mount of that file system.
func mounted(dir string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type&math.MaxUint32 == magic
}

// appArmor asks the module's own switch.
func appArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(b), "Y")
}
