package bundle

import (
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
)

// LaunchError marks an error of the shim's, about starting the container's program.
type LaunchError struct{ Err error }

// Error is the shim's own text.
func (e *LaunchError) Error() string { return e.Err.Error() }

// Unwrap makes the shim's class the error's own.
func (e *LaunchError) Unwrap() error { return e.Err }

// Words that Docker's users, and the docker command's exit codes, know.
const (
	createFailed = "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: "
	execFailed   = "OCI runtime exec failed: exec failed: unable to start container process: "
	mountHint    = ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
)

// exitCodeOf says what a shell would answer for a program that could not be started: 127
// not found, 126 not executable, 0 for anything else.
func exitCodeOf(text string) int {
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("executable file not found"), has("no such file or directory"), has("system cannot find the file specified"):
		return 127
	case has("permission denied"), has("is a directory"), has("exec format error"):
		return 126
	}
	return 0
}

// StartError gives a failed start its exit code, words and class.
func StartError(err error) (int, error) {
	var rt *LaunchError
	if !errors.As(err, &rt) {
		return 128, err
	}
	if c := errclass.Of(err); c == errdefs.ErrUnavailable {
		return 128, err
	}
	text := createFailed + rt.Error()
	switch code := exitCodeOf(text); {
	case code != 0:
		return code, errclass.Invalid("%s", text)
	case strings.Contains(text, "chdir to cwd"):
		if dir, ok := quoted(text); ok && strings.Contains(text, "not a directory") {
			return 128, errclass.Invalid("Cannot mkdir: %s is not a directory", dir)
		}
	case strings.Contains(text, "not a directory"):
		return 127, errclass.Invalid("%s", strings.TrimSuffix(text, mountHint)+mountHint)
	}
	return 128, errclass.With(errclass.Of(err), errors.New(text))
}

// quoted is the directory that could not be entered.
func quoted(text string) (string, bool) {
	_, rest, ok := strings.Cut(text, `chdir to cwd ("`)
	if !ok {
		return "", false
	}
	dir, _, ok := strings.Cut(rest, `")`)
	return dir, ok
}

// ExecError gives an exec that the shim could not start its exit code, words and class.
func ExecError(err error) (int, error) {
	text := execFailed + err.Error()
	code := exitCodeOf(text)
	if code == 0 {
		return 126, errclass.With(errclass.Of(err), errors.New(text))
	}
	return code, errclass.Invalid("%s", text)
}
