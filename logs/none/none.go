// Package none is the log driver that keeps no output.
package none

import (
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
)

// Driver is the driver none.
type Driver struct{}

// Describe implements logs.Driver.
func (Driver) Describe() logs.Description {
	return logs.Description{Name: "none", Discards: true}
}

// Path implements logs.Driver.
func (Driver) Path(logs.Place) string { return "" }

// Configure implements logs.Driver: options are not looked at, as in Docker.
func (Driver) Configure(logs.Place, map[string]string) (*logs.Config, error) { return nil, nil }

// OpenWriter implements logs.Driver; there is nothing to write, so it is not called.
func (Driver) OpenWriter(*logs.Config, func(string, ...any)) (logs.Writer, error) {
	return nil, errclass.Invalid("the log driver none writes nothing")
}

// OpenCursor implements logs.Driver: it refuses, in Docker's words.
func (Driver) OpenCursor(logs.Place, logs.Query) (logs.Cursor, error) {
	return nil, errclass.Invalid("configured logging driver does not support reading")
}
