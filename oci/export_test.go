package oci

import "github.com/gantry/gantry/oci/launch/sysprog"

// SkippedInit tells whether p was started by a program of system calls, without init.
func SkippedInit(p *Process) bool { return p.direct }

// SysprogWorks tells whether anything can be: not in builds for coverage.
func SysprogWorks() bool { return sysprog.Works() }

// Refused tells why a program of system calls did not become the container, when init did it
// instead.
func Refused(p *Process) error { return p.refused }
