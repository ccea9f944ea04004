#!/bin/sh
# Go (seen with go1.26.8 linux/amd64, Linux 6.18): runtime.LockOSThread's documentation says that a goroutine which exits
# without unlocking ends its thread, and programs that enter a container's namespace rely on that to throw the thread away.
# For the process's FIRST thread it is not so: the runtime cannot end it and parks it for ever (runtime/proc.go, mexit), in the
# namespace that it entered. From then on /proc/self (that is: /proc/PID of the whole process) shows the container's namespaces
# and, with a mount namespace, its root; the namespace lives as long as the process. Any goroutine may happen to run on that
# thread, so it shows once in a while.
# In the product: storage/rootview, engine/network/netns and oci/launch/netdev take another thread when they find themselves on the first one.
#
# Needs go and root (it makes a host name namespace). Exit 0: the behaviour is as told; 77: it cannot be tried here; 1: it has changed.
set -eu
command -v go >/dev/null || { echo "needs go"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "needs root"; exit 77; }
t=$(mktemp -d "${TMPDIR:-/var/tmp}/finding.XXXXXX")
trap 'rm -rf "$t"' EXIT
cat >"$t/go.mod" <<'MOD'
module finding

go 1.24
MOD
cat >"$t/main.go" <<'GO'
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
)

// on calls f on a locked goroutine that is on the first thread, or that is not, and lets that
// goroutine exit without unlocking.
func on(first bool, f func()) {
	found, held := make(chan bool), make(chan struct{})
	for range 10_000 {
		go func() {
			runtime.LockOSThread()
			if (syscall.Gettid() == syscall.Getpid()) != first {
				found <- false
				<-held // keeps this thread, so that the next goroutine gets another one
				runtime.UnlockOSThread()
				return
			}
			f()
			found <- true
		}()
		if <-found {
			close(held)
			time.Sleep(200 * time.Millisecond) // the thread ends, or is parked
			return
		}
	}
	fmt.Println("no goroutine met the thread")
	os.Exit(77)
}

func namespace() string {
	s, err := os.Readlink("/proc/self/ns/uts")
	if err != nil {
		fmt.Println(err)
		os.Exit(77)
	}
	return s
}

func enter() {
	if err := syscall.Unshare(syscall.CLONE_NEWUTS); err != nil {
		fmt.Println(err)
		os.Exit(77)
	}
}

func main() {
	fmt.Println(runtime.Version())
	start := namespace()
	on(false, enter)
	other := namespace()
	fmt.Println("another thread entered a namespace and its goroutine exited: the process is elsewhere:", other != start)
	on(true, enter)
	first := namespace()
	fmt.Println("the first thread did:                                        the process is elsewhere:", first != start)
	if other != start || first == start {
		fmt.Println("CHANGED")
		os.Exit(1)
	}
}
GO
(cd "$t" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local go build -o finding .) || exit 77
"$t/finding"
