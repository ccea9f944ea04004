package container

import (
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/storage"
)

var (
	_ Images   = (*image.Service)(nil)
	_ Layers   = (*storage.Layers)(nil)
	_ Networks = (*network.Service)(nil)
	_ Shim     = (*shim.Client)(nil)
)
