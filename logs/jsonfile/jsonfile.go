// Package jsonfile is Docker's json-file log, byte for byte: one JSON object a line, in files
// that log shippers know where to find. It holds both sides of the format, which share
// logs.MaxLine as the limit of a line.
package jsonfile

import (
	"encoding/json"
	"errors"
	"path/filepath"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

// The size and number of files where nothing is said: logs rotate by default.
const (
	defaultSize  = 10 << 20
	defaultFiles = 3
)

// Driver is the driver json-file.
type Driver struct{}

// Describe implements logs.Driver.
func (Driver) Describe() logs.Description {
	return logs.Description{Name: "json-file", Options: logs.FileOptions(), PublicPath: true}
}

// Path implements logs.Driver.
func (Driver) Path(p logs.Place) string { return filepath.Join(p.Dir, p.ID+"-json.log") }

// Configure implements logs.Driver.
func (Driver) Configure(_ logs.Place, opts map[string]string) (*logs.Config, error) {
	c := &logs.Config{MaxSize: defaultSize, MaxFiles: defaultFiles}
	return c, logs.ReadFileOptions(c, opts, "unknown log opt '%s' for json-file log driver")
}

// OpenWriter implements logs.Driver.
func (Driver) OpenWriter(c *logs.Config, logf func(string, ...any)) (logs.Writer, error) {
	if len(c.Attrs) > 0 && !json.Valid(c.Attrs) {
		return nil, errors.New("log attributes are not JSON")
	}
	return logfile.OpenWriter(c, &format{attrs: c.Attrs}, logf)
}

// OpenCursor implements logs.Driver.
func (d Driver) OpenCursor(p logs.Place, q logs.Query) (logs.Cursor, error) {
	return logfile.OpenCursor(d.Path(p), &format{}, q)
}
