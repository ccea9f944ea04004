package main

import (
	"os/exec"
	"syscall"
	"time"
)

// floor is a process without an engine.
type floor struct {
	name  string
	flags uintptr
}

func floors() []floor {
	return []floor{
		{"fork+exec of true", 0},
		{"the same in 6 new namespaces", syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET | syscall.CLONE_NEWCGROUP},
	}
}

// measure counts the processor time of this process and of the child.
func (f floor) measure(rounds int) (*samples, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	var s samples
	for range rounds {
		time.Sleep(5 * time.Millisecond) // as far apart as the engines' rounds: caches cool down
		before, start := used(), time.Now()
		cmd := exec.Command(path, "true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: f.flags}
		if err := cmd.Run(); err != nil {
			return nil, err
		}
		s.wall = append(s.wall, ms(time.Since(start)))
		s.cpu = append(s.cpu, ms(used()-before))
	}
	return &s, nil
}

// used is the processor time of this process and its children that have ended.
func used() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
