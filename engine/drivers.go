package engine

import (
	"fmt"
	"slices"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/driver/overlay"
	"github.com/gantry/gantry/storage/driver/vfs"
)

// This file is the one table of built-in drivers.

// storageDriver is a union file system that can be chosen by --storage-driver.
type storageDriver struct {
	name    string
	aliases []string
	open    driver.Open
}

// storageDrivers are all of them; the first is the one for who chooses none.
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
