package oci

import (
	"math"
	"os"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup/rdt"
	"github.com/gantry/gantry/oci/launch/netdev"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/caps"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// refuse answers what this runtime does not do, so that nobody believes it done.
func refuse(s *specs.Spec) error {
	l := s.Linux
	if l.IntelRdt != nil && !rdt.Available() {
		return errclass.NotImplemented("intelRdt is specified in config, but Intel RDT is not enabled on this machine (%s is not mounted)", rdt.Root)
	}
	if err := netdev.Check(l, confined()); err != nil {
		return err
	}
	return nil
}

// machine is what the plan of p has to know of this one; what nothing depends on is not
// looked at. A label of mounts alone is for a machine that has SELinux, and nothing
// elsewhere, as with runc and crun: engines set it without asking.
func machine(p *specs.Process, mountLabel string) plan.Machine {
	m := plan.Machine{Capabilities: caps.Held()}
	if !mayMapIDs() {
		m.Capabilities = ^uint64(0) // in a user namespace there are others, which init knows
	}
	if p != nil {
		m.SELinux = (p.SelinuxLabel != "" || mountLabel != "") && seLinux()
		m.AppArmor = p.ApparmorProfile != "" && appArmor()
	}
	return m
}

// seLinux tells whether the kernel has it on.
func seLinux() bool { return mounted("/sys/fs/selinux", unix.SELINUX_MAGIC) }

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
