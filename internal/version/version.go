// Package version holds the program's version. The linker sets its variables (-ldflags "-X
// github.com/gantry/gantry/internal/version.Version=…"); they are never written afterwards.
package version

// Version is the release, Commit the short git commit, BuildTime the time of the
// build as RFC 3339. Commit and BuildTime may be "unknown".
var (
	Version   = "0.1.0-dev"
	Commit    = "unknown"
	BuildTime = "unknown"
)
