package sysmon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRelax: one thread gets the slack, and it is none that runs the program's code.
func TestRelax(t *testing.T) {
	err := Relax()
	if errors.Is(err, fs.ErrPermission) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		t.Fatal(err)
	}
	var relaxed []string
	for _, d := range dirs {
		tid := filepath.Base(d)
		b, err := os.ReadFile("/proc/" + tid + "/timerslack_ns")
		if err == nil && strings.TrimSpace(string(b)) == strconv.FormatInt(Slack.Nanoseconds(), 10) {
			relaxed = append(relaxed, tid)
		}
	}
	if len(relaxed) != 1 {
		t.Fatalf("threads with slack: %v", relaxed)
	}
	// Goroutines that occupy all threads there are never meet sysmon's.
	const many = 32
	seen := make(chan int)
	hold := make(chan struct{})
	for range many {
		go func() {
			runtime.LockOSThread()
			seen <- syscall.Gettid()
			<-hold
		}()
	}
	for range many {
		if tid := <-seen; strconv.Itoa(tid) == relaxed[0] {
			t.Errorf("thread %d runs goroutines", tid)
		}
	}
	close(hold)
}
