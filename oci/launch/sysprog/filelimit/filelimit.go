// Package filelimit knows the limit of open files that this process was started
// with. Package syscall raises the soft limit when it is initialized and lowers it
// again only for what it starts itself; what is forked otherwise would keep it raised.
//
// It must import nothing but unsafe: packages are initialized in the order of their
// paths once all their imports are (Go 1.21 and later), so that this one comes
// before syscall.
package filelimit

// started is read once, before any other code of the program could change the
// limit: the soft and the hard one, both 0 when unknown.
var started = func() (lim [2]uint64) {
	const nofile = 7 // RLIMIT_NOFILE
	if prlimit64(nofile, &lim) != 0 {
		return [2]uint64{}
	}
	return lim
}()

// Soft returns the soft limit; ok is false where it could not be read (architectures
// but amd64 and arm64).
func Soft() (limit uint64, ok bool) { return started[0], started[1] != 0 }
