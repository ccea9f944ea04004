package sysprog

import (
	"syscall"

	"github.com/gantry/gantry/oci/launch/sysprog/filelimit"
	"golang.org/x/sys/unix"
)

// OpenFiles is the limit of open files (RLIMIT_NOFILE) for a process that
// nobody set one for: what this process was started with, as Go's runtime has raised
// its soft limit. As in package syscall, a soft limit one below the hard one tells that
// it is Go's; any other stays. nil where it is unknown.
func OpenFiles() *syscall.Rlimit {
	var lim syscall.Rlimit
	soft, ok := filelimit.Soft()
	if !ok || syscall.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return nil
	}
	if lim.Cur+1 == lim.Max && soft < lim.Cur {
		lim.Cur = soft
	}
	return &lim
}
