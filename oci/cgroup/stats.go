package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

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
	MaxUsage uint64            `json:"max_usage"` // v1, or v2 from Linux 5.19
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

// userHz is the unit of v1's cpuacct.stat: USER_HZ is 100 on every architecture
// that Go runs on.
const userHz = 100

// Stats reads the usage now. Controllers that are missing leave zeros; class
// ErrNotFound when the cgroup is gone.
func (g *Group) Stats() (*Stats, error) {
	if !exists(g.procsDir()) {
		return nil, errclass.NotFound("the cgroup is gone")
	}
	s := &Stats{Read: time.Now()}
	if g.sys.Unified() {
		return s, g.statsV2(s)
	}
	return s, g.statsV1(s)
}

// opt drops the error of a file that this kernel does not have.
func opt(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// number is one file with a number and where it goes.
type number struct {
	dir, file string
	to        *uint64
}

func readNumbers(ns []number) error {
	for _, n := range ns {
		if n.dir == "" {
			continue
		}
		v, err := readUint(n.dir, n.file)
		if opt(err) != nil {
			return err
		}
		*n.to = v
	}
	return nil
}

func (g *Group) statsV1(s *Stats) error {
	mem, pids, acct := g.dirs["memory"], g.dirs["pids"], g.dirs["cpuacct"]
	err := readNumbers([]number{
		{mem, "memory.usage_in_bytes", &s.Memory.Usage},
		{mem, "memory.max_usage_in_bytes", &s.Memory.MaxUsage},
		{mem, "memory.limit_in_bytes", &s.Memory.Limit},
		{mem, "memory.failcnt", &s.Memory.Failcnt},
		{pids, "pids.current", &s.Pids.Current},
		{pids, "pids.max", &s.Pids.Limit},
		{acct, "cpuacct.usage", &s.CPU.Usage},
	})
	if err != nil {
		return err
	}
	if mem != "" {
		if s.Memory.Stat, err = readKeyed(mem + "/memory.stat"); opt(err) != nil {
			return err
		}
	}
	if acct != "" {
		ticks, err := readKeyed(acct + "/cpuacct.stat")
		if opt(err) != nil {
			return err
		}
		const tick = uint64(time.Second / userHz)
		s.CPU.User, s.CPU.System = ticks["user"]*tick, ticks["system"]*tick
		b, err := readFile(acct + "/cpuacct.usage_percpu")
		if opt(err) != nil {
			return err
		}
		for f := range bytes.FieldsSeq(b) {
			v, err := strconv.ParseUint(string(f), 10, 64)
			if err != nil {
				return fmt.Errorf("cpuacct.usage_percpu: %w", err)
			}
			s.CPU.PerCPU = append(s.CPU.PerCPU, v)
		}
	}
	if cpu := g.dirs["cpu"]; cpu != "" {
		st, err := readKeyed(cpu + "/cpu.stat")
		if opt(err) != nil {
			return err
		}
		s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = st["nr_periods"], st["nr_throttled"], st["throttled_time"]
	}
	return g.blkioV1(s)
}

func (g *Group) blkioV1(s *Stats) error {
	dir := g.dirs["blkio"]
	if dir == "" {
		return nil
	}
	for _, f := range []struct {
		names [2]string
		to    *[]BlkioEntry
	}{
		{[2]string{"blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"}, &s.Blkio.ServiceBytes},
		{[2]string{"blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"}, &s.Blkio.Serviced},
	} {
		for _, n := range f.names {
			b, err := readFile(filepath.Join(dir, n))
			if opt(err) != nil {
				return err
			}
			if *f.to = parseBlkio(b); len(*f.to) > 0 {
				break
			}
		}
	}
	return nil
}

// parseBlkio reads "8:0 Read 123" lines.
func parseBlkio(b []byte) []BlkioEntry {
	var out []BlkioEntry
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) != 3 {
			continue
		}
		var e BlkioEntry
		if _, err := fmt.Sscanf(f[0], "%d:%d", &e.Major, &e.Minor); err != nil {
			continue
		}
		v, err := strconv.ParseUint(f[2], 10, 64)
		if err != nil {
			continue
		}
		e.Op, e.Value = f[1], v
		out = append(out, e)
	}
	return out
}

func (g *Group) statsV2(s *Stats) error {
	dir := g.dirs[""]
	s.Memory.V2 = true
	err := readNumbers([]number{
		{dir, "memory.current", &s.Memory.Usage},
		{dir, "memory.peak", &s.Memory.MaxUsage},
		{dir, "memory.max", &s.Memory.Limit},
		{dir, "pids.current", &s.Pids.Current},
		{dir, "pids.max", &s.Pids.Limit},
	})
	if err != nil {
		return err
	}
	if s.Memory.Stat, err = readKeyed(dir + "/memory.stat"); opt(err) != nil {
		return err
	}
	ev, err := readKeyed(dir + "/memory.events")
	if opt(err) != nil {
		return err
	}
	s.Memory.Failcnt = ev["max"]
	cpu, err := readKeyed(dir + "/cpu.stat")
	if opt(err) != nil {
		return err
	}
	const usec = 1000
	s.CPU = CPUStats{
		Usage: cpu["usage_usec"] * usec, User: cpu["user_usec"] * usec, System: cpu["system_usec"] * usec,
		Periods: cpu["nr_periods"], ThrottledPeriods: cpu["nr_throttled"], ThrottledTime: cpu["throttled_usec"] * usec,
	}
	b, err := readFile(dir + "/io.stat")
	if opt(err) != nil {
		return err
	}
	s.Blkio = parseIOStat(b)
	return nil
}

// parseIOStat reads "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6" lines.
func parseIOStat(b []byte) BlkioStats {
	var out BlkioStats
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) < 2 {
			continue
		}
		var e BlkioEntry
		if _, err := fmt.Sscanf(f[0], "%d:%d", &e.Major, &e.Minor); err != nil {
			continue
		}
		for _, kv := range f[1:] {
			k, val, _ := strings.Cut(kv, "=")
			v, err := strconv.ParseUint(val, 10, 64)
			if err != nil {
				continue
			}
			e.Value = v
			switch k {
			case "rbytes", "wbytes":
				e.Op = map[string]string{"rbytes": "read", "wbytes": "write"}[k]
				out.ServiceBytes = append(out.ServiceBytes, e)
			case "rios", "wios":
				e.Op = map[string]string{"rios": "read", "wios": "write"}[k]
				out.Serviced = append(out.Serviced, e)
			}
		}
	}
	return out
}

// OOMKills counts processes the kernel killed for lack of memory in this cgroup.
func (g *Group) OOMKills() (uint64, error) {
	dir, file := g.dirs["memory"], "memory.oom_control"
	if g.sys.Unified() {
		dir, file = g.dirs[""], "memory.events"
	}
	if dir == "" {
		return 0, nil
	}
	kv, err := readKeyed(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, errclass.NotFound("the cgroup is gone")
	}
	return kv["oom_kill"], err
}

// OOMEvents returns a descriptor that becomes readable when memory ran out, or
// the cgroup was removed. The caller closes it.
func (g *Group) OOMEvents() (*os.File, error) {
	if g.sys.Unified() {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return nil, fmt.Errorf("inotify: %w", err)
		}
		if _, err := unix.InotifyAddWatch(fd, g.dirs[""]+"/memory.events", unix.IN_MODIFY); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("watch memory.events: %w", err)
		}
		return os.NewFile(uintptr(fd), "memory.events"), nil
	}
	dir := g.dirs["memory"]
	if dir == "" {
		return nil, errclass.NotImplemented("the memory cgroup controller is not mounted")
	}
	ctl, err := unix.Open(dir+"/memory.oom_control", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open memory.oom_control: %w", err)
	}
	defer unix.Close(ctl)
	ev, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if err := writeFile(dir+"/cgroup.event_control", fmt.Sprintf("%d %d", ev, ctl)); err != nil {
		unix.Close(ev)
		return nil, err
	}
	return os.NewFile(uintptr(ev), "memory.oom_control"), nil
}
