// Package local is Docker's `local` log: records in protocol buffers, each between two copies of
// its length, in files below local-logs that are compressed when they are rotated. It takes less
// room than json-file, and its files are for the engine alone.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

// The size and number of files where nothing is said, as in Docker.
const (
	defaultSize  = 20 << 20
	defaultFiles = 5
)

// Driver is the driver local.
type Driver struct{}

// Describe implements logs.Driver.
func (Driver) Describe() logs.Description {
	return logs.Description{Name: "local", Options: logs.FileOptions()}
}

// Path implements logs.Driver.
func (Driver) Path(p logs.Place) string { return filepath.Join(p.Dir, "local-logs", "container.log") }

// Configure implements logs.Driver.
func (Driver) Configure(_ logs.Place, opts map[string]string) (*logs.Config, error) {
	c := &logs.Config{MaxSize: defaultSize, MaxFiles: defaultFiles, Compress: true}
	return c, logs.ReadFileOptions(c, opts, "unknown log opt '%s' for log driver local")
}

// OpenWriter implements logs.Driver.
func (Driver) OpenWriter(c *logs.Config, logf func(string, ...any)) (logs.Writer, error) {
	var attrs map[string]string
	if len(c.Attrs) > 0 {
		if err := json.Unmarshal(c.Attrs, &attrs); err != nil {
			return nil, fmt.Errorf("log attributes: %w", err)
		}
	}
	f := &format{}
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		f.attrs = appendAttr(f.attrs, k, attrs[k])
	}
	// The container's own directory is not made: when it is gone, so is the container.
	if err := os.Mkdir(filepath.Dir(c.Path), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return logfile.OpenWriter(c, f, logf)
}

// OpenCursor implements logs.Driver.
func (d Driver) OpenCursor(p logs.Place, q logs.Query) (logs.Cursor, error) {
	return logfile.OpenCursor(d.Path(p), &format{}, q)
}
