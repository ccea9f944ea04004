package oci

import "github.com/gantry/gantry/oci/launch/sysprog"

// Forked tells whether p was started by fork, without init.
func Forked(p *Process) bool { return p.direct }

// Forks tells whether anything can be: not in builds for coverage.
func Forks() bool { return sysprog.Works() }

// Refused tells why a forked process did not become the container, when init did it
// instead.
func Refused(p *Process) error { return p.refused }
