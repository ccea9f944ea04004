package ocicli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/ocicli/signum"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func setupKill(a *app, f *flags) func([]string) error {
	var all bool
	f.boolean(&all, "all,a", "signal all processes of the container")
	return func(args []string) error {
		c, err := a.store.open(args[0])
		if err != nil {
			return err
		}
		defer c.close()
		sig := unix.SIGTERM
		if len(args) > 1 {
			if sig, err = signum.Parse(args[1]); err != nil {
				return err
			}
		}
		if all {
			if err := oci.KillAll(c.Cgroup, sig); err != nil {
				return err
			}
			return c.thawKilled(sig)
		}
		return c.signal(sig)
	}
}

// signal signals the container's first process.
func (c *container) signal(sig unix.Signal) error {
	p, err := openProcess(c.Pid, c.StartTime)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := signalProcess(p, sig); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return errNotRunning
		}
		return fmt.Errorf("signal container %s: %w", c.ID, err)
	}
	return c.thawKilled(sig)
}

// thawKilled resumes a paused container after SIGKILL: with cgroup v1 frozen
// processes do not die.
func (c *container) thawKilled(sig unix.Signal) error {
	if sig != unix.SIGKILL {
		return nil
	}
	if frozen, err := oci.Frozen(c.Cgroup); err != nil || !frozen {
		return nil //nolint:nilerr // gone already
	}
	if err := oci.Resume(c.Cgroup); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// killTime bounds how long a killed process may take to end.
const killTime = 10 * time.Second

// kill ends the container's processes and waits until the first one is gone.
func (a *app) kill(c *container) error {
	p, err := openProcess(c.Pid, c.StartTime)
	if err == nil {
		defer p.Close()
		if err := c.signal(unix.SIGKILL); err != nil && !errors.Is(err, errNotRunning) {
			return err
		}
		if err := awaitEnd(p, killTime); err != nil {
			return fmt.Errorf("container %s: %w", c.ID, err)
		}
	}
	return oci.KillAll(c.Cgroup, unix.SIGKILL)
}

// awaitEnd waits until a process has ended; it may remain a zombie.
func awaitEnd(pidfd *os.File, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("the process does not end after SIGKILL")
		}
		n := 0
		err := control(pidfd, func(fd int) (err error) {
			n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left/time.Millisecond)+1)
			return err
		})
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func setupDelete(a *app, f *flags) func([]string) error {
	var force bool
	f.boolean(&force, "force,f", "kill the container first if it runs; no error if there is none")
	return func(args []string) error {
		c, err := a.store.open(args[0])
		if err != nil {
			if force && errors.Is(err, errNotExist) {
				return nil
			}
			return err
		}
		defer c.close()
		// Forced, somebody who hangs with the lock held does not stop us.
		if err := c.lock(!force); err != nil && !force {
			return err
		}
		if !force {
			c.settle()
		}
		switch st := c.status(); {
		case st == specs.StateStopped:
		case force, st == specs.StateCreated:
			if err := a.kill(c); err != nil {
				return err
			}
		default:
			return precondition("cannot delete container %s that is not stopped: %s", c.ID, st)
		}
		spec, err := c.spec()
		if err != nil {
			spec = nil
		}
		return a.destroy(c, spec)
	}
}

// settleTime is what a process that was just killed gets to be gone.
const settleTime = 200 * time.Millisecond

// settle waits a moment for a running process to end: people kill, and delete
// right after.
func (c *container) settle() {
	if c.status() != specs.StateRunning {
		return
	}
	if p, err := openProcess(c.Pid, c.StartTime); err == nil {
		_ = awaitEnd(p, settleTime)
		p.Close()
	}
}

// destroy removes what is left of a container that has ended. spec is its
// configuration; nil: it was never made, its hooks have not run.
func (a *app) destroy(c *container, spec *specs.Spec) error {
	if len(c.Cgroup.Paths) != 0 {
		// Without a pid namespace of its own processes may have outlived the first.
		if err := oci.KillAll(c.Cgroup, unix.SIGKILL); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		if err := oci.DeleteCgroup(c.Cgroup); err != nil {
			return err
		}
	}
	if err := oci.DeleteRdt(c.ID, spec); err != nil {
		a.log.warn("%v", err)
	}
	if err := c.remove(); err != nil {
		return err
	}
	a.hooks(c, "poststop", spec)
	return nil
}

// setupFreeze makes pause and resume: what is done, and to containers of which status.
func setupFreeze(do func(oci.CgroupRef) error, from ...specs.ContainerState) func(*app, *flags) func([]string) error {
	return func(a *app, _ *flags) func([]string) error {
		return func(args []string) error { return a.freeze(args[0], do, from...) }
	}
}

func (a *app) freeze(id string, do func(oci.CgroupRef) error, from ...specs.ContainerState) error {
	c, err := a.store.open(id)
	if err != nil {
		return err
	}
	defer c.close()
	st := c.status()
	if !slices.Contains(from, st) {
		if from[0] == statusPaused {
			return precondition("container not paused")
		}
		return errNotRunning
	}
	return do(c.Cgroup)
}

func setupPs(a *app, f *flags) func([]string) error {
	format := "table"
	f.stopAtArg = true
	f.str(&format, "format,f", "FORMAT", "table or json")
	return func(args []string) error {
		c, err := a.store.open(args[0])
		if err != nil {
			return err
		}
		defer c.close()
		pids, err := oci.Pids(c.Cgroup)
		if err != nil {
			return err
		}
		switch format {
		case "json":
			return json.NewEncoder(a.out).Encode(pids)
		case "table":
			return a.psTable(pids, args[1:])
		}
		return usageError("invalid format option")
	}
}

// psTable prints the lines of ps(1) that are about pids.
func (a *app) psTable(pids []int, args []string) error {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := exec.CommandContext(a.ctx, "ps", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	lines := strings.Split(string(out), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errors.New("couldn't find PID field in ps output")
	}
	fmt.Fprintln(a.out, lines[0])
	for _, l := range lines[1:] {
		f := strings.Fields(l)
		if column >= len(f) {
			continue
		}
		pid, err := strconv.Atoi(f[column])
		if err != nil {
			return fmt.Errorf("unable to parse pid: %w", err)
		}
		if slices.Contains(pids, pid) {
			fmt.Fprintln(a.out, l)
		}
	}
	return nil
}

func setupUpdate(a *app, f *flags) func([]string) error {
	var from string
	l3, bw := "", ""
	r := &specs.LinuxResources{}
	f.str(&l3, "l3-cache-schema", "SCHEMA", "Intel RDT: share of the L3 cache")
	f.str(&bw, "mem-bw-schema", "SCHEMA", "Intel RDT: share of the memory's bandwidth")
	f.str(&from, "resources,r", "FILE", "the limits as JSON, as in a specification; - is standard input")
	updateFlags(r, f)
	return func(args []string) error {
		c, err := a.store.open(args[0])
		if err != nil {
			return err
		}
		defer c.close()
		if c.status() == specs.StateStopped {
			return errNotRunning
		}
		if from != "" {
			var b []byte
			if from == "-" {
				b, err = readLimited(a.in, "standard input")
			} else {
				b, err = readAll(from)
			}
			if err != nil {
				return err
			}
			r = new(specs.LinuxResources)
			if err := json.Unmarshal(b, r); err != nil {
				return errclass.Invalid("resources: %w", err)
			}
		}
		if l3 != "" || bw != "" {
			spec, err := c.spec()
			if err != nil {
				return err
			}
			if err := oci.UpdateRdt(c.ID, spec, l3, bw); err != nil {
				return err
			}
		}
		r.Devices = nil // cannot change (spec: not part of update)
		return oci.Update(c.Cgroup, r)
	}
}

func updateFlags(r *specs.LinuxResources, f *flags) {
	cpu := func() *specs.LinuxCPU {
		if r.CPU == nil {
			r.CPU = new(specs.LinuxCPU)
		}
		return r.CPU
	}
	mem := func() *specs.LinuxMemory {
		if r.Memory == nil {
			r.Memory = new(specs.LinuxMemory)
		}
		return r.Memory
	}
	unsigned := func(name, help string, set func(uint64)) {
		f.add(name, "N", help, func(v string) error {
			n, err := strconv.ParseUint(v, 10, 64)
			if err == nil {
				set(n)
			}
			return err
		})
	}
	signed := func(name, help string, parse func(string) (int64, error), set func(*int64)) {
		f.add(name, "N", help, func(v string) error {
			n, err := parse(v)
			if err == nil {
				set(&n)
			}
			return err
		})
	}
	f.add("blkio-weight", "N", "block I/O weight, 10 to 1000", func(v string) error {
		n, err := strconv.ParseUint(v, 10, 16)
		w := uint16(n)
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		return err
	})
	unsigned("cpu-period", "CPU period in microseconds", func(n uint64) { cpu().Period = &n })
	signed("cpu-quota", "CPU time in a period, in microseconds; -1: no limit", decimal, func(n *int64) { cpu().Quota = n })
	unsigned("cpu-burst", "CPU time that may be saved up, in microseconds", func(n uint64) { cpu().Burst = &n })
	unsigned("cpu-share", "relative CPU weight", func(n uint64) { cpu().Shares = &n })
	unsigned("cpu-rt-period", "real-time period in microseconds", func(n uint64) { cpu().RealtimePeriod = &n })
	signed("cpu-rt-runtime", "real-time CPU time in a period, in microseconds", decimal, func(n *int64) { cpu().RealtimeRuntime = n })
	signed("cpu-idle", "1: run only when nothing else does", decimal, func(n *int64) { cpu().Idle = n })
	f.add("cpuset-cpus", "LIST", "CPUs to use", func(v string) error { cpu().Cpus = v; return nil })
	f.add("cpuset-mems", "LIST", "memory nodes to use", func(v string) error { cpu().Mems = v; return nil })
	signed("memory", "memory limit in bytes (suffixes k, m, g); -1: none", size, func(n *int64) { mem().Limit = n })
	signed("memory-reservation", "memory low mark in bytes", size, func(n *int64) { mem().Reservation = n })
	signed("memory-swap", "memory and swap in bytes; -1: no limit", size, func(n *int64) { mem().Swap = n })
	f.ignored("kernel-memory", "N", "accepted: obsolete")
	f.ignored("kernel-memory-tcp", "N", "accepted: obsolete")
	signed("pids-limit", "number of tasks", decimal, func(n *int64) { r.Pids = &specs.LinuxPids{Limit: n} })
}

func decimal(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

// size parses bytes with an optional binary suffix: 64m, 64MB, 1g, -1.
func size(s string) (int64, error) {
	t := strings.ToLower(strings.TrimSpace(s))
	if n, err := strconv.ParseInt(t, 10, 64); err == nil {
		return n, nil
	}
	t = strings.TrimSuffix(strings.TrimSuffix(t, "b"), "i")
	shift := 0
	if t != "" {
		if i := strings.IndexByte("kmgtp", t[len(t)-1]); i >= 0 {
			shift, t = 10*(i+1), t[:len(t)-1]
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 || n > 1<<62>>shift {
		return 0, fmt.Errorf("invalid size: %q", s)
	}
	return n << shift, nil
}
