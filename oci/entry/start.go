//go:build amd64 || arm64

// Package entry is where the gantry-runtime program begins, before the Go runtime
// does: the linker is told so by -E (Makefile). Without that the program begins
// as any other and works the same, a millisecond slower.
package entry

// Start is the program's entry point; nobody calls it. For the commands run and
// exec it blocks all signals and goes on to Go's own entry point.
//
// A Go program that wants all signals has os/signal: a handshake between threads
// for each of them, 130 in all, which is a tenth of what a container's whole life
// costs. What is blocked when the Go runtime starts stays blocked in every
// thread of it, but for those that it needs itself and the usual four that end a
// program, and then one signalfd(2) does. Package runc finds out by itself that it
// is so; what is started from there is started with no signal blocked.
//
// Elsewhere than on amd64 and arm64 it does not exist.
func Start()
