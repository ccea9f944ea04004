// Command mask prints the signal mask that it began with.
package main

import (
	"fmt"

	_ "github.com/gantry/gantry/oci/entry"
	"golang.org/x/sys/unix"
)

func main() {
	var now unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now); err != nil {
		panic(err)
	}
	fmt.Println(now.Val[0]&(1<<(unix.SIGUSR1-1)) != 0)
}
