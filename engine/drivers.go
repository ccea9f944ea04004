package engine

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/remote"
	"github.com/gantry/gantry/engine/network/vlan"
	"github.com/gantry/gantry/engine/plugin"
	volumedriver "github.com/gantry/gantry/engine/volume/driver"
	volumelocal "github.com/gantry/gantry/engine/volume/driver/local"
	"github.com/gantry/gantry/engine/volume/driver/volplugin"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/local"
	"github.com/gantry/gantry/logs/none"
	storagedriver "github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/driver/overlay"
	"github.com/gantry/gantry/storage/driver/vfs"
)

// The drivers that are built in, one function for each seam. A new driver is a line here.

// logDrivers write and read containers' logs. Those that keep a file of a format of its own
// stand in shim/shimd too, which writes it.
func logDrivers() logs.Drivers {
	return logs.Drivers{jsonfile.Driver{}, local.Driver{}, none.Driver{}}
}

// volumeDrivers are the built-in volume drivers, and a source of plugins. closeAll closes them.
func volumeDrivers(dataRoot string, log *slog.Logger) (builtin []volumedriver.Driver, more volumedriver.Source, closeAll func() error, err error) {
	local, err := volumelocal.Open(filepath.Join(dataRoot, "volumes"), log)
	if err != nil {
		return nil, nil, nil, err
	}
	return []volumedriver.Driver{local}, volplugin.Source{Plugins: plugin.Default()}, local.Close, nil
}

// networkDrivers are the built-in network drivers. Any other name is a plugin's.
func networkDrivers(c network.Config, plugins plugin.Source) network.Drivers {
	return network.Drivers{
		Networks: driver.Table{
			Builtin: map[string]driver.New{
				"bridge": bridge.New(bridge.Config{
					Given: c.Bridge, ICC: c.ICC, Masq: c.IPMasq, BindIP: c.DefaultBindIP, MTU: c.MTU, Log: c.Log,
				}),
				"host":    driver.HostNetwork,
				"ipvlan":  vlan.Ipvlan,
				"macvlan": vlan.Macvlan,
				"null":    driver.NoNetwork,
				"overlay": driver.InSwarm,
			},
			Plugin: remote.New(plugins),
		},
		Predefined: map[string]string{network.NameBridge: "bridge", network.NameHost: "host", network.NameNone: "null"},
		IPAM:       remote.NewIPAM(plugins),
	}
}

// storageDriver is a union file system that can be chosen by --storage-driver.
type storageDriver struct {
	name    string
	aliases []string
	open    storagedriver.Open
}

// storageDrivers are all storage drivers; the first is the default.
func storageDrivers() []storageDriver {
	return []storageDriver{
		{overlay.Name, []string{"overlay2"}, overlay.Open},
		{vfs.Name, nil, vfs.Open},
	}
}

// findStorageDriver finds a driver by its name; "" is the first. The error, of class
// InvalidArgument, is Docker's.
func findStorageDriver(name string) (storageDriver, error) {
	all := storageDrivers()
	if name == "" {
		return all[0], nil
	}
	for _, d := range all {
		if d.name == name || slices.Contains(d.aliases, name) {
			return d, nil
		}
	}
	err := fmt.Errorf("error initializing graphdriver: driver not supported: %s", name)
	switch name {
	case "aufs", "devicemapper", "overlay":
		err = fmt.Errorf("error initializing graphdriver: [graphdriver] ERROR: the %s storage-driver has been deprecated and removed; visit https://docs.docker.com/go/storage-driver/ for more information", name)
	}
	return storageDriver{}, errclass.Invalid("%w", err)
}
