package spec

import (
	"os"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func osMode(m uint32) os.FileMode { return os.FileMode(m & 0o7777) }

// Unconfined as a profile means no filter.
const Unconfined = "unconfined"

// Seccomp is the filter for a spec that Build made: profile is "unconfined", "" or
// "builtin" for Docker's default profile, or a profile's JSON. It depends on the
// spec's bounding capabilities only. Nil is no filter.
func Seccomp(profile string, sp *specs.Spec) (*specs.LinuxSeccomp, error) {
	switch profile {
	case Unconfined:
		return nil, nil
	case "", "builtin":
		return seccomp.GetDefaultProfile(sp)
	}
	f, err := seccomp.LoadProfile(profile, sp)
	if err != nil {
		return nil, invalid("%w", err)
	}
	return f, nil
}
