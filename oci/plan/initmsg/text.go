package initmsg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// ErrBreakout says that a working directory is not below the container's root.
var ErrBreakout = errclass.Invalid("current working directory is outside of container mount namespace root -- possible container breakout detected")

// ErrEndedEarly says that init, or what was to become it, ended without a reason.
var ErrEndedEarly = errclass.Internal("the container's init process ended early")

// CwdError says why the working directory could not be entered.
func CwdError(cwd string, err error) error {
	return errclass.Invalid("chdir to cwd (%q) set in config.json failed: %w", cwd, err)
}

// LookError says why name, which was given as a path, is no program that can be
// executed. The texts of this and the following are those that Docker's users know.
func LookError(name string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return errclass.NotFound("exec: %q: stat %s: %w", name, name, err)
	}
	if errors.Is(err, unix.EISDIR) {
		return errclass.Forbidden("exec: %q: is a directory", name)
	}
	return DeniedError(name)
}

// DeniedError says that name was found but may not be executed.
func DeniedError(name string) error {
	return errclass.Forbidden("exec: %q: permission denied", name)
}

// MissingError says that no directory of PATH has name.
func MissingError(name string) error {
	return errclass.NotFound("exec: %q: executable file not found in $PATH", name)
}

// ExecError says why execve of the file failed.
func ExecError(file string, e unix.Errno) error {
	err := fmt.Errorf("exec %s: %w", file, e)
	switch e {
	case unix.ENOENT, unix.ENOTDIR:
		return errclass.NotFound("%w", err)
	case unix.EACCES, unix.EPERM:
		return errclass.Forbidden("%w", err)
	}
	return errclass.Invalid("%w", err)
}

// Candidates are the files that name, which has no slash, may mean, in order. An
// empty or relative entry of PATH means the working directory: never run from there.
func Candidates(name, searchPath string) []string {
	var out []string
	for _, dir := range strings.Split(searchPath, ":") {
		if strings.HasPrefix(dir, "/") && name != "" {
			out = append(out, strings.TrimSuffix(dir, "/")+"/"+name)
		}
	}
	return out
}

// Environment is the program's: of doubles the last wins, and HOME is always set,
// from home when nobody did.
func Environment(in []string, home func() string) []string {
	at := make(map[string]int, len(in)+1)
	env := make([]string, 0, len(in)+1)
	for _, kv := range in {
		k, _, _ := strings.Cut(kv, "=")
		if i, ok := at[k]; ok {
			env[i] = kv
			continue
		}
		at[k] = len(env)
		env = append(env, kv)
	}
	if i, ok := at["HOME"]; !ok {
		env = append(env, "HOME="+home())
	} else if env[i] == "HOME=" {
		env[i] = "HOME=" + home()
	}
	return env
}

// Getenv is the value of the first variable with that name.
func Getenv(env []string, key string) string {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			return v
		}
	}
	return ""
}

// What the payload of FrameErrno begins with. An errno of four bytes, little-endian, and a
// text follow: what failed, or the file that was to be executed.
const (
	ErrnoOther = iota
	ErrnoExec
)

// Failed is the error that the payload of a FrameErrno tells.
func Failed(payload []byte) error {
	if len(payload) < 5 {
		return ErrCorrupt
	}
	e := unix.Errno(binary.LittleEndian.Uint32(payload[1:]))
	text := string(payload[5:])
	switch {
	case payload[0] == ErrnoExec:
		return ExecError(text, e)
	case text == "":
		text = "start the program"
	}
	return fmt.Errorf("%s: %w", text, e)
}
