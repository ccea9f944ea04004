// Package ociinit is what runs inside a container before its program does: the
// process that assembles the root, gives up its rights and executes the program.
package ociinit

// Main runs the part of a container's start that happens inside it, when the
// process was started for that, and never returns then. Otherwise it returns at
// once. It must be the first call of main, and of TestMain in tests that start
// containers.
func Main() {}
