package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/logs"
)

const (
	// maxRecord bounds a record that is read back, in bytes.
	maxRecord = 16 << 20
	// removing prefixes directories of containers whose removal has begun: it is the point
	// of no return, and a restore finishes what a crash left.
	removing = ".removing-"
	// withVolumes marks a container that is being removed as one whose anonymous volumes go
	// with it.
	withVolumes = "with-volumes"
)

// Files are the directories of containers: one below the data-root that lasts, one below
// the exec-root, on tmpfs, while a run is up. Safe for concurrent use on different
// containers; what is of one container only its task writes.
type Files struct{ data, exec string }

// Open makes both places, below absolute paths.
func Open(dataRoot, execRoot string) (*Files, error) {
	f := &Files{filepath.Join(dataRoot, "containers"), filepath.Join(execRoot, "containers")}
	for _, d := range []string{f.data, f.exec} {
		if err := os.MkdirAll(d, 0o710); err != nil {
			return nil, fmt.Errorf("preparing containers: %w", err)
		}
	}
	return f, nil
}

// Dir is the container's lasting directory.
func (f *Files) Dir(cid string) string { return filepath.Join(f.data, cid) }

// RunDir is the directory of the container's run, on tmpfs.
func (f *Files) RunDir(cid string) string { return filepath.Join(f.exec, cid) }

// Log is where the container's output goes.
func (f *Files) Log(cid string) logs.Place { return logs.Place{Dir: f.Dir(cid), ID: cid} }

// HostFile is a file that is written for a container and mounted into it.
func (f *Files) HostFile(cid, name string) string { return filepath.Join(f.Dir(cid), name) }

// EditHostFile changes such a file in place: it is mounted. edit may change its argument.
func (f *Files) EditHostFile(cid, name string, edit func([]byte) []byte) error {
	path := f.HostFile(cid, name)
	old, err := readFile(path)
	if err != nil {
		return err
	}
	if now := edit(slices.Clone(old)); !bytes.Equal(now, old) {
		return os.WriteFile(path, now, 0o644)
	}
	return nil
}

// Create makes the directory of a container that is to be; its record makes it one.
func (f *Files) Create(cid string) error { return os.Mkdir(f.Dir(cid), 0o710) }

// All lists the containers that have a directory, those without a record included.
func (f *Files) All() ([]string, error) { return list(f.data, "") }

// Removing lists the containers whose removal has begun and did not end.
func (f *Files) Removing() ([]string, error) { return list(f.data, removing) }

// Runs lists the containers that have a run's directory.
func (f *Files) Runs() ([]string, error) { return list(f.exec, "") }

func list(dir, prefix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if cid, ok := strings.CutPrefix(e.Name(), prefix); ok && id.Valid(cid) {
			ids = append(ids, cid)
		}
	}
	return ids, nil
}

// Exists reports whether the container has a lasting directory.
func (f *Files) Exists(cid string) bool {
	_, err := os.Lstat(f.Dir(cid))
	return !errors.Is(err, fs.ErrNotExist)
}

// SaveRecord writes config.json: from then on the container exists. It is forced to the disk (fsync) but for a container
// that removes itself: no such container outlives the machine, and a record that got lost or is empty then is a create
// that came to nothing.
func (f *Files) SaveRecord(r *Record) error {
	return atomicfile.WriteJSON(filepath.Join(f.Dir(r.ID), "config.json"), r, 0o600, !r.HostConfig.AutoRemove)
}

// Record reads config.json; class NotFound when it is not there.
func (f *Files) Record(cid string) (*Record, error) { return recordIn(f.Dir(cid), cid) }

func recordIn(dir, cid string) (*Record, error) {
	r := &Record{}
	if err := readJSON(filepath.Join(dir, "config.json"), r, func() int { return r.Schema }); err != nil {
		return nil, err
	}
	if r.ID != cid || r.Config == nil || r.HostConfig == nil {
		return nil, fmt.Errorf("the record of container %s is another one's, or incomplete", cid)
	}
	return r, nil
}

// SaveLast writes last.json, without fsync.
func (f *Files) SaveLast(cid string, last *Last) error {
	return atomicfile.WriteJSON(filepath.Join(f.Dir(cid), "last.json"), last, 0o600, false)
}

// Last reads last.json; class NotFound when it is not there.
func (f *Files) Last(cid string) (*Last, error) {
	last := &Last{}
	return last, readJSON(filepath.Join(f.Dir(cid), "last.json"), last, func() int { return last.Schema })
}

// RunFile is an open run.json. It gets a line for every state of the run, and the last
// whole line counts: appending is one write to tmpfs, which a kill -9 leaves done or torn.
type RunFile struct{ f *os.File }

// OpenRun makes a container's run.json anew. The caller closes it.
func (f *Files) OpenRun(cid string) (*RunFile, error) {
	dir := f.RunDir(cid)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return openRun(dir, os.O_CREATE|os.O_TRUNC)
}

// AppendRun opens the run.json that is there. The caller closes it.
func (f *Files) AppendRun(cid string) (*RunFile, error) { return openRun(f.RunDir(cid), 0) }

func openRun(dir string, flags int) (*RunFile, error) {
	file, err := os.OpenFile(filepath.Join(dir, "run.json"), flags|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &RunFile{file}, nil
}

// Save appends the state of the run.
func (r *RunFile) Save(run *Run) error {
	data, err := json.Marshal(run)
	if err != nil {
		return err
	}
	_, err = r.f.Write(append(data, '\n'))
	return err
}

// Close closes the file.
func (r *RunFile) Close() error { return r.f.Close() }

// Run reads what run.json says last; class NotFound when it is not there.
func (f *Files) Run(cid string) (*Run, error) {
	path := filepath.Join(f.RunDir(cid), "run.json")
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	for len(data) > 0 {
		data = bytes.TrimSuffix(data, []byte{'\n'})
		i := bytes.LastIndexByte(data, '\n') + 1
		run := &Run{}
		if err := json.Unmarshal(data[i:], run); err == nil {
			return run, checkSchema(path, run.Schema)
		}
		data = data[:i]
	}
	return nil, fmt.Errorf("reading %s: no whole record", path)
}

// DropRun removes the run's directory; none is no error.
func (f *Files) DropRun(cid string) error { return os.RemoveAll(f.RunDir(cid)) }

// SaveProbe names the health check that runs, so that a daemon that comes after ends it.
func (f *Files) SaveProbe(cid, execID string) error {
	return os.WriteFile(filepath.Join(f.RunDir(cid), "probe"), []byte(execID), 0o600)
}

// Probe is the health check that ran last; "" when that is not known.
func (f *Files) Probe(cid string) string {
	data, err := readFile(filepath.Join(f.RunDir(cid), "probe"))
	if err != nil {
		return ""
	}
	return string(data)
}

// BeginRemoval marks the container as one that is being removed: a restore finishes that.
// It can be repeated. volumes says that its anonymous volumes go with it.
func (f *Files) BeginRemoval(cid string, volumes bool) error {
	if volumes {
		if err := os.WriteFile(filepath.Join(f.Dir(cid), withVolumes), nil, 0o600); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if err := os.Rename(f.Dir(cid), f.removingDir(cid)); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// UndoRemoval takes the mark back. Should that fail, the next restore finishes the removal.
func (f *Files) UndoRemoval(cid string) { _ = os.Rename(f.removingDir(cid), f.Dir(cid)) }

// Removed is the record of a container whose removal has begun, and whether its anonymous
// volumes go with it. An error when it has no record: it was half made.
func (f *Files) Removed(cid string) (r *Record, volumes bool, err error) {
	dir := f.removingDir(cid)
	if r, err = recordIn(dir, cid); err != nil {
		return nil, false, err
	}
	_, err = os.Lstat(filepath.Join(dir, withVolumes))
	return r, err == nil, nil
}

// FinishRemoval removes all files of a container whose removal has begun.
func (f *Files) FinishRemoval(cid string) error {
	if err := f.DropRun(cid); err != nil {
		return err
	}
	return os.RemoveAll(f.removingDir(cid))
}

func (f *Files) removingDir(cid string) string { return filepath.Join(f.data, removing+cid) }

// readJSON reads a record of ours, bounded. Class NotFound when it is not there, or empty: the machine's end took what
// had not been forced to the disk. A newer version's is refused.
func readJSON(path string, v any, version func() int) error {
	data, err := readFile(path)
	if err != nil {
		return err
	}
	if len(data) == 0 {
		return errclass.NotFound("%s is empty", path)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return checkSchema(path, version())
}

func checkSchema(path string, got int) error {
	if got < 1 || got > Schema {
		return fmt.Errorf("%s has schema version %d, this daemon knows up to %d", path, got, Schema)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errclass.NotFound("%w", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}
