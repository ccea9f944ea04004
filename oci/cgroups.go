package oci

import (
	"os"
	"syscall"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DeleteCgroup removes the container's cgroup directories, nested ones first. It
// tries again for a bounded time while the kernel still lets go of dead processes,
// and is idempotent: directories that are gone are no error. Cgroups that still
// hold processes answer with class ErrFailedPrecondition.
func DeleteCgroup(ref CgroupRef) error { return errNotBuilt }

// KillAll sends sig to every process in the cgroup and those nested in it. With
// SIGKILL it goes on, for a bounded number of rounds, until none is left.
func KillAll(ref CgroupRef, sig syscall.Signal) error { return errNotBuilt }

// Pause freezes every process of the cgroup and returns when all are frozen.
func Pause(ref CgroupRef) error { return errNotBuilt }

// Resume thaws what Pause froze.
func Resume(ref CgroupRef) error { return errNotBuilt }

// Update changes the limits of a running container; fields that are not set stay.
func Update(ref CgroupRef, res *specs.LinuxResources) error { return errNotBuilt }

// Pids lists all processes of the cgroup and of those nested in it, in the
// caller's pid namespace.
func Pids(ref CgroupRef) ([]int, error) { return nil, errNotBuilt }

// OOMCount tells how many times the kernel killed a process of the cgroup
// because of its memory limit.
func OOMCount(ref CgroupRef) (uint64, error) { return 0, errNotBuilt }

// OOMEvents returns a descriptor that becomes readable (v1: an eventfd to read 8
// bytes from; v2: an inotify descriptor on memory.events) when OOMCount may have
// changed, or the cgroup was removed. The caller closes it.
func OOMEvents(ref CgroupRef) (*os.File, error) { return nil, errNotBuilt }

// ReadStats reads the cgroup's usage now.
func ReadStats(ref CgroupRef) (*Stats, error) { return nil, errNotBuilt }

var errNotBuilt = errclass.NotImplemented("this part of the runtime is not built yet")

// Stats is a cgroup's usage as the kernel counts it. Times are nanoseconds,
// sizes bytes. Limits are 0 when there is none.
type Stats struct {
	Read   time.Time   `json:"read"`
	CPU    CPUStats    `json:"cpu"`
	Memory MemoryStats `json:"memory"`
	Pids   PidsStats   `json:"pids"`
	Blkio  BlkioStats  `json:"blkio"`
}

// CPUStats counts CPU time and throttling.
type CPUStats struct {
	Usage            uint64   `json:"usage"`
	User             uint64   `json:"user"`
	System           uint64   `json:"system"`
	PerCPU           []uint64 `json:"per_cpu,omitempty"` // v1 only
	Periods          uint64   `json:"periods"`
	ThrottledPeriods uint64   `json:"throttled_periods"`
	ThrottledTime    uint64   `json:"throttled_time"`
}

// MemoryStats counts memory; Stat is the kernel's memory.stat as it is.
type MemoryStats struct {
	Usage    uint64            `json:"usage"`
	MaxUsage uint64            `json:"max_usage"` // v1 only, or v2 from Linux 5.19
	Limit    uint64            `json:"limit"`
	Failcnt  uint64            `json:"failcnt"`
	Stat     map[string]uint64 `json:"stat,omitempty"`
	// V2 tells that Stat has the names of cgroup v2.
	V2 bool `json:"v2,omitempty"`
}

// PidsStats counts tasks.
type PidsStats struct {
	Current uint64 `json:"current"`
	Limit   uint64 `json:"limit"`
}

// BlkioEntry is one counter of one block device.
type BlkioEntry struct {
	Major uint64 `json:"major"`
	Minor uint64 `json:"minor"`
	Op    string `json:"op"`
	Value uint64 `json:"value"`
}

// BlkioStats counts block I/O per device, in Docker's naming.
type BlkioStats struct {
	ServiceBytes []BlkioEntry `json:"service_bytes,omitempty"`
	Serviced     []BlkioEntry `json:"serviced,omitempty"`
}
