// Command mask prints whether it began with signals blocked, whether nobody can change
// what it runs from, whether that is read-only, its name, and the timer slack that it
// began with that it has when it is settled, and its environment.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/gantry/gantry/oci/launch/entry"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"golang.org/x/sys/unix"
)

func main() {
	var now unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now); err != nil {
		panic(err)
	}
	err := unix.Access("/proc/self/exe", unix.W_OK) // opening answers that it is being executed
	comm, _ := os.ReadFile("/proc/self/comm")
	runtime.LockOSThread()
	began, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	entry.Settle()
	settled, _ := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	fmt.Println(now.Val[0]&(1<<(unix.SIGUSR1-1)) != 0, selfexe.Runs(), err == unix.EROFS, strings.TrimSpace(string(comm)), began, settled, strings.Join(os.Environ(), ","))
}
