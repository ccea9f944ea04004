package ocicli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// logger writes errors and warnings in the two formats of runc, which callers
// read back: containerd and podman take the last error of a JSON log as the reason.
// A nil logger writes nothing.
type logger struct {
	file   *os.File // nil: none was asked for
	stderr io.Writer
	json   bool
}

func newLogger(stderr io.Writer, path, format string) (*logger, error) {
	l := &logger{stderr: stderr}
	switch format {
	case "", "text":
	case "json":
		l.json = true
	default:
		return nil, fmt.Errorf("invalid log-format: %s", format)
	}
	if path != "" && path != "/dev/null" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return nil, err
		}
		l.file = f
	} else if path == "/dev/null" {
		l.file = nil
		l.stderr = nil
	}
	return l, nil
}

func (l *logger) close() {
	if l != nil && l.file != nil {
		l.file.Close()
	}
}

func (l *logger) line(level, msg string) []byte {
	now := time.Now().UTC().Format(time.RFC3339)
	if !l.json {
		return fmt.Appendf(nil, "time=%q level=%s msg=%q\n", now, level, msg)
	}
	b, err := json.Marshal(struct {
		Level string `json:"level"`
		Msg   string `json:"msg"`
		Time  string `json:"time"`
	}{level, msg, now})
	if err != nil { // strings always encode
		return nil
	}
	return append(b, '\n')
}

// warn reports what is not worth failing for: to the log, or to a person at a
// terminal. Standard error may be the container's own, where it would be taken for
// the program's output.
func (l *logger) warn(format string, a ...any) {
	if l == nil {
		return
	}
	line := l.line("warning", fmt.Sprintf(format, a...))
	if l.file != nil {
		_, _ = l.file.Write(line)
		return
	}
	if _, err := unix.IoctlGetTermios(unix.Stderr, unix.TCGETS); err == nil && l.stderr != nil {
		_, _ = l.stderr.Write(line)
	}
}

// failure reports why the command fails: in the log and, in words, on standard
// error.
func (l *logger) failure(err error) {
	if l == nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	if l.file != nil {
		_, _ = l.file.Write(l.line("error", err.Error()))
		fmt.Fprintln(os.Stderr, err)
		return
	}
	if l.stderr == nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_, _ = l.stderr.Write(l.line("error", err.Error()))
}
