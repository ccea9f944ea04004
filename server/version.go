package server

import (
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// The API versions served. MaxAPIVersion is the one of the moby/api module that
// the types come from (v1.57.0); the module has no constant for it.
const (
	MinAPIVersion = "1.24"
	MaxAPIVersion = "1.57"
)

// apiVersion is the minor number of an API version; the major one is always 1.
type apiVersion int

const (
	oldest apiVersion = 24
	newest apiVersion = 57
)

// before reports whether the client speaks a version older than 1.minor.
func (v apiVersion) before(minor int) bool { return int(v) < minor }

func (v apiVersion) String() string { return "1." + strconv.Itoa(int(v)) }

// splitVersion takes a leading /v1.44 off path. ok tells whether there was one.
func splitVersion(path string) (version, rest string, ok bool) {
	first, tail, more := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !more || !isVersionSegment(first) {
		return "", path, false
	}
	return first[1:], "/" + tail, true
}

// parseVersion checks the version a client asked for, in Docker's words.
func parseVersion(s string) (apiVersion, error) {
	majorText, minorText, _ := strings.Cut(s, ".")
	major, err1 := strconv.ParseUint(majorText, 10, 16)
	minor, err2 := strconv.ParseUint(minorText, 10, 16)
	if minorText == "" {
		minor, err2 = 0, nil
	}
	if err1 != nil || err2 != nil {
		return 0, errclass.Invalid("invalid API version %q", s)
	}
	switch {
	case major > 1 || major == 1 && apiVersion(minor) > newest:
		return 0, errclass.Invalid("client version %s is too new. Maximum supported API version is %s", s, MaxAPIVersion)
	case major < 1 || apiVersion(minor) < oldest:
		return 0, errclass.Invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", s, MinAPIVersion)
	}
	return apiVersion(minor), nil
}

// isVersionSegment matches v[0-9.]+ starting with a digit.
func isVersionSegment(s string) bool {
	if len(s) < 2 || s[0] != 'v' || s[1] < '0' || s[1] > '9' {
		return false
	}
	return strings.Trim(s[1:], "0123456789.") == ""
}
