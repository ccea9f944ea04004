// Package sysmon slows down the thread of Go's runtime that watches the others.
//
// That thread (sysmon) sleeps for 20 µs at a time, over and over, for a millisecond after
// every system call that wakes it, before it begins to sleep longer. In a daemon that
// mostly waits, a request of three milliseconds has fifty such wake-ups, each of which is a
// timer interrupt and two context switches: a tenth of its processor time.
package sysmon

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// Slack is by how much sysmon's sleeps may become longer. It is also by how much
// longer a thread in a slow system call may keep others from running when there are as many
// of those as processors.
const Slack = time.Millisecond

// Relax lets the kernel end sysmon's sleeps up to Slack late, together with what wakes
// the processor anyway (PR_SET_TIMERSLACK(2const), proc_pid_timerslack_ns(5)). No other
// thread's timers change. It needs CAP_SYS_NICE; without it the error is of no consequence.
func Relax() error {
	tid, err := thread()
	if err != nil {
		return err
	}
	// A thread has a directory of its own there, which no listing shows.
	path := "/proc/" + tid + "/timerslack_ns"
	if err := os.WriteFile(path, []byte(strconv.FormatInt(Slack.Nanoseconds(), 10)), 0); err != nil {
		return fmt.Errorf("relax sysmon: %w", err)
	}
	return nil
}

// thread is sysmon's: the first one that the runtime makes, before any code of the
// program runs. The kernel lists threads in the order in which they were made.
func thread() (string, error) {
	d, err := os.Open("/proc/self/task")
	if err != nil {
		return "", fmt.Errorf("find sysmon: %w", err)
	}
	defer d.Close()
	tids, err := d.Readdirnames(2)
	if err != nil || len(tids) < 2 {
		return "", fmt.Errorf("find sysmon among %d threads: %w", len(tids), err)
	}
	return tids[1], nil
}
