package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"golang.org/x/sys/unix"
)

const (
	// lockName is flocked by the daemon that uses a data-root, and has its pid.
	lockName = "gantry.lock"
	// markerName tells that a data-root is ours, and which schema it has.
	markerName = "gantry.json"
	// schema is the newest layout of the data-root this daemon knows.
	schema = 1
)

// marker is the content of gantry.json.
type marker struct {
	Schema int    `json:"schema"`
	ID     string `json:"id"` // the engine's identity for /info
}

// dataRoot is a data-root that this process has for itself.
type dataRoot struct {
	path string
	id   string
	lock *os.File
}

// openDataRoot makes sure that path is ours alone. A directory with another engine's
// state, or of a newer schema, is refused (class FailedPrecondition) and not changed;
// one that another daemon uses is of class Conflict.
func openDataRoot(path string) (*dataRoot, error) {
	var m marker
	data, err := readBounded(filepath.Join(path, markerName))
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &m); err != nil {
			return nil, errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf("data-root %s: %s is damaged: %w", path, markerName, err))
		}
		if m.Schema > schema {
			return nil, errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf("data-root %s was written by a newer version of this engine (schema %d, this one knows %d): not touched", path, m.Schema, schema))
		}
	case errors.Is(err, os.ErrNotExist):
		if what := foreign(path); what != "" {
			return nil, errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf("data-root %s holds the state of another engine (%s): not touched; give this daemon a --data-root of its own", path, what))
		}
	default:
		return nil, fmt.Errorf("data-root: %w", err)
	}
	if err := os.MkdirAll(path, 0o710); err != nil {
		return nil, fmt.Errorf("data-root: %w", err)
	}
	if err := os.Chmod(path, 0o710); err != nil {
		return nil, fmt.Errorf("data-root: %w", err)
	}
	d := &dataRoot{path: path, id: m.ID}
	if d.lock, err = lockFile(filepath.Join(path, lockName)); err != nil {
		return nil, fmt.Errorf("data-root %s: %w", path, err)
	}
	if m.ID == "" {
		d.id = newEngineID()
		if err := atomicfile.WriteJSON(filepath.Join(path, markerName), marker{Schema: schema, ID: d.id}, 0o600, true); err != nil {
			return nil, errors.Join(fmt.Errorf("data-root: %w", err), d.close())
		}
	}
	return d, nil
}

// close releases the lock. The file stays: removing it would race with the next daemon.
func (d *dataRoot) close() error { return d.lock.Close() }

// foreign names a sign of another engine's state below path, "" for none.
func foreign(path string) string {
	for _, sign := range []struct{ glob, engine string }{
		{"image/overlay2", "Docker"},
		{"image/*/repositories.json", "Docker"},
		{"overlay2", "Docker"},
		{"containers/*/config.v2.json", "Docker"},
		{"engine-id", "Docker"},
		{"buildkit", "Docker"},
		{"swarm", "Docker"},
		{"network/files/local-kv.db", "Docker"},
		{"volumes/metadata.db", "Docker"},
		{"libpod", "Podman"},
		{"overlay-containers", "Podman"},
		{"overlay-layers", "Podman"},
		{"db.sql", "Podman"},
		{"io.containerd.*", "containerd"},
	} {
		if found, err := filepath.Glob(filepath.Join(path, sign.glob)); err == nil && len(found) > 0 {
			rel, _ := filepath.Rel(path, found[0]) // both are below path
			return fmt.Sprintf("%s: it has %s", sign.engine, rel)
		}
	}
	return ""
}

// lockWait bounds the wait for a lock whose holder is dead: a child that it forked and that
// has not executed its program yet has the lock for that moment.
const lockWait = 2 * time.Second

// lockFile takes an exclusive lock that the kernel drops with this process, however
// it ends. The holder's pid is in the file for the error of the next one.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		var buf [20]byte
		n, _ := f.ReadAt(buf[:], 0) // io.EOF is the normal end
		pid := strings.TrimSpace(string(buf[:n]))
		holder, perr := strconv.Atoi(pid)
		if dead := perr == nil && unix.Kill(holder, 0) == unix.ESRCH; !dead || time.Now().After(end) {
			f.Close()
			return nil, errclass.Conflict("in use by another daemon (pid %s)", pid)
		}
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(pid), 0)
		if err == nil {
			return f, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("writing %s", path), f.Close())
}

// newEngineID returns an identity in the form of a random UUID, as Docker's.
func newEngineID() string {
	h := []byte(id.New()[:32])
	h[12], h[16] = '4', "89ab"[h[16]&3]
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

// openExecRoot makes the directory of the state that a reboot forgets.
func openExecRoot(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("exec-root: %w", err)
	}
	if err := os.Chmod(path, 0o700); err != nil {
		return fmt.Errorf("exec-root: %w", err)
	}
	return nil
}

// writePidfile writes our pid, unless the file names a live dockerd.
func writePidfile(path string) error {
	if data, err := readBounded(path); err == nil {
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err == nil && pid > 0 && pid != os.Getpid() && isDaemon(pid) {
			return errclass.Conflict("process with PID %d is still running: ensure dockerd is not running or delete %s", pid, path)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("pidfile: %w", err)
	}
	if err := atomicfile.Write(path, []byte(strconv.Itoa(os.Getpid())), 0o644, false); err != nil {
		return fmt.Errorf("pidfile: %w", err)
	}
	return nil
}

// isDaemon tells whether pid is alive and runs a program called as this one: a
// reused pid is no obstacle, nor is a killed daemon whose parent has not reaped it.
func isDaemon(pid int) bool {
	other, state := nameAndState(fmt.Sprintf("/proc/%d/stat", pid))
	own, _ := nameAndState("/proc/self/stat")
	return other != "" && other == own && state != 'Z' && state != 'X'
}

// nameAndState reads a process's name and state (proc_pid_stat(5), fields 2 and 3);
// "" when there is no such process.
func nameAndState(stat string) (name string, state byte) {
	data, err := os.ReadFile(stat)
	if err != nil {
		return "", 0
	}
	from, to := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if from < 0 || to < from || to+2 >= len(data) {
		return "", 0
	}
	return string(data[from+1 : to]), data[to+2]
}

// removePidfile removes the file when it is still ours.
func removePidfile(path string) error {
	data, err := readBounded(path)
	if err != nil || strings.TrimSpace(string(data)) != strconv.Itoa(os.Getpid()) {
		return nil //nolint:nilerr // somebody else's file, or none
	}
	return os.Remove(path)
}
