package runc

import (
	"encoding/json"
	"errors"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The JSON of events is runc's.
type (
	event struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Data any    `json:"data,omitempty"`
	}
	stats struct {
		CPU               cpuStats            `json:"cpu"`
		Memory            memoryStats         `json:"memory"`
		Pids              pidsStats           `json:"pids"`
		Blkio             blkioStats          `json:"blkio"`
		Hugetlb           map[string]struct{} `json:"hugetlb"`
		IntelRdt          struct{}            `json:"intel_rdt"`
		NetworkInterfaces []struct{}          `json:"network_interfaces"`
	}
	cpuStats struct {
		Usage struct {
			Total  uint64   `json:"total,omitempty"`
			PerCPU []uint64 `json:"percpu,omitempty"`
			Kernel uint64   `json:"kernel"`
			User   uint64   `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
	}
	memoryEntry struct {
		Limit   uint64 `json:"limit"`
		Usage   uint64 `json:"usage,omitempty"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	}
	memoryStats struct {
		Cache uint64            `json:"cache,omitempty"`
		Usage memoryEntry       `json:"usage"`
		Raw   map[string]uint64 `json:"raw,omitempty"`
	}
	pidsStats struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	}
	blkioEntry struct {
		Major uint64 `json:"major,omitempty"`
		Minor uint64 `json:"minor,omitempty"`
		Op    string `json:"op,omitempty"`
		Value uint64 `json:"value,omitempty"`
	}
	blkioStats struct {
		ServiceBytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Serviced     []blkioEntry `json:"ioServicedRecursive,omitempty"`
	}
)

func newStats(s *oci.Stats) *stats {
	out := &stats{Hugetlb: map[string]struct{}{}}
	u := &out.CPU.Usage
	u.Total, u.PerCPU, u.Kernel, u.User = s.CPU.Usage, s.CPU.PerCPU, s.CPU.System, s.CPU.User
	t := &out.CPU.Throttling
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime
	m := &out.Memory
	m.Raw = s.Memory.Stat
	m.Cache = s.Memory.Stat["cache"]
	if s.Memory.V2 {
		m.Cache = s.Memory.Stat["file"]
	}
	m.Usage = memoryEntry{Limit: s.Memory.Limit, Usage: s.Memory.Usage, Max: s.Memory.MaxUsage, Failcnt: s.Memory.Failcnt}
	if m.Usage.Limit == 0 {
		m.Usage.Limit = math.MaxUint64
	}
	out.Pids = pidsStats{s.Pids.Current, s.Pids.Limit}
	for _, e := range s.Blkio.ServiceBytes {
		out.Blkio.ServiceBytes = append(out.Blkio.ServiceBytes, blkioEntry(e))
	}
	for _, e := range s.Blkio.Serviced {
		out.Blkio.Serviced = append(out.Blkio.Serviced, blkioEntry(e))
	}
	return out
}

func setupEvents(a *app, f *flags) func([]string) error {
	interval, once := 5*time.Second, false
	f.duration(&interval, "interval", "DURATION", "time between two prints of the usage (default: 5s)")
	f.boolean(&once, "stats", "print the usage once")
	return func(args []string) error {
		if interval <= 0 {
			return usageError("duration interval must be greater than 0")
		}
		c, err := a.open(args[0])
		if err != nil {
			return err
		}
		defer c.close()
		if c.status() == specs.StateStopped {
			return precondition("container with id %s is not running", c.ID)
		}
		if once {
			return a.printStats(c)
		}
		return a.follow(c, interval)
	}
}

func (a *app) printStats(c *container) error {
	s, err := oci.ReadStats(c.Cgroup)
	if err != nil {
		return err
	}
	return json.NewEncoder(a.out).Encode(event{"stats", c.ID, newStats(s)})
}

// follow prints events until the container has ended.
func (a *app) follow(c *container, interval time.Duration) error {
	p, err := openProcess(c.Pid, c.StartTime)
	if err != nil {
		return err
	}
	defer p.Close()
	oom := make(chan struct{}, 1)
	if f, err := oci.OOMEvents(c.Cgroup); err != nil {
		a.log.warn("out-of-memory events: %v", err)
	} else {
		defer f.Close()
		go readOOM(f, c.Cgroup, oom)
	}
	ended := make(chan error, 1)
	go func() { ended <- untilEnd(p) }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := a.printStats(c); err != nil && !errdefs.IsNotFound(err) && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		case <-oom:
			if err := json.NewEncoder(a.out).Encode(event{Type: "oom", ID: c.ID}); err != nil {
				return err
			}
		case err := <-ended:
			return err
		}
	}
}

// readOOM sends when the count of kills has risen.
func readOOM(f *os.File, ref oci.CgroupRef, oom chan<- struct{}) {
	last, _ := oci.OOMCount(ref)
	b := make([]byte, 4096) // an inotify event with a name, or eight bytes
	for {
		if _, err := f.Read(b); err != nil {
			return
		}
		n, err := oci.OOMCount(ref)
		if err != nil || n <= last {
			continue
		}
		last = n
		select {
		case oom <- struct{}{}:
		default: // one is waiting to be printed
		}
	}
}

func untilEnd(p *os.File) error {
	return control(p, func(fd int) error {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}
