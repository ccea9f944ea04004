//go:build amd64 || arm64

// Package entry is the entry point of gantry-runtime: it runs before the Go runtime does (the
// linker's option -E in the Makefile). A binary that is linked without that option works the
// same, some milliseconds slower.
package entry

// Start is the program's entry point; nobody calls it. For the commands run, exec and
// create it does three things and goes on to Go's own entry point.
//
// It executes the program once more, through a mount of its own file that is read-only
// and in no mount namespace, as package selfexe does for init. A fork of this process
// may come near a container then: what a script there whose interpreter is
// /proc/self/exe reaches can be changed by nobody. It is done once, since the kernel calls
// a program executed by descriptor /dev/fd/N; whether it was done, package selfexe asks the
// kernel. With it goes GOMAXPROCS=1: a command that does one thing after the other needs
// no memory for a second processor.
//
// It has the thread's timers come late, by up to a millisecond, and with it those of all
// other threads: Go's sysmon, which sleeps for 20 µs at a time for as long as such a
// command runs, wakes up a tenth as often. Settle undoes that.
//
// It blocks all signals for run and exec.
// A Go program that wants all signals has os/signal: a handshake between threads
// for each of them, 130 in all, which is a tenth of what a container's whole life
// costs. What is blocked when the Go runtime starts stays blocked in every
// thread of it, but for those that it needs itself and the usual four that end a
// program, and then one signalfd(2) does. Package ocicli finds out by itself that it
// is so; what is started from there is started with no signal blocked.
//
// Elsewhere than on amd64 and arm64 it does not exist.
func Start()

// slack is the timer slack that the program was started with, in nanoseconds, when
// Start has changed it.
var slack uint64
