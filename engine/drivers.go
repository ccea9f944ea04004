package engine

import (
	"log/slog"
	"path/filepath"

	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/engine/volume/driver"
	volumelocal "github.com/gantry/gantry/engine/volume/driver/local"
	"github.com/gantry/gantry/engine/volume/driver/volplugin"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/local"
	"github.com/gantry/gantry/logs/none"
)

// The drivers that are built in, one function for each seam. A new driver is a line here.

// logDrivers write and read containers' logs. Those that keep a file of a format of its own
// stand in shim/server too, which writes it.
func logDrivers() logs.Drivers {
	return logs.Drivers{jsonfile.Driver{}, local.Driver{}, none.Driver{}}
}

// volumeDrivers make volumes: those that are always there, and the plugins that are found by
// their files. closeAll lets go of them.
func volumeDrivers(dataRoot string, log *slog.Logger) (builtin []driver.Driver, more driver.Source, closeAll func() error, err error) {
	local, err := volumelocal.Open(filepath.Join(dataRoot, "volumes"), log)
	if err != nil {
		return nil, nil, nil, err
	}
	return []driver.Driver{local}, volplugin.Source{Plugins: plugin.Default()}, local.Close, nil
}
