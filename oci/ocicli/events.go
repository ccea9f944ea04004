package ocicli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/ocicli/forms"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func setupEvents(a *app, f *flags) func([]string) error {
	interval, once := 5*time.Second, false
	f.duration(&interval, "interval", "DURATION", "time between two prints of the usage (default: 5s)")
	f.boolean(&once, "stats", "print the usage once")
	return func(args []string) error {
		if interval <= 0 {
			return usageError("duration interval must be greater than 0")
		}
		c, err := a.store.open(args[0])
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
	d, err := oci.ReadDetails(c.Cgroup)
	if err != nil {
		return err
	}
	return json.NewEncoder(a.out).Encode(forms.Event{Type: "stats", ID: c.ID, Data: forms.NewStats(s, d)})
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
			if err := json.NewEncoder(a.out).Encode(forms.Event{Type: "oom", ID: c.ID}); err != nil {
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
