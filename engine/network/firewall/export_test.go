package firewall

import (
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/internal/nft"
)

// PortElems lets tests add and remove the elements of one published port.
func PortElems(p ports.Mapping, b driver.Bridge, directRouting bool) []nft.SetElems {
	return portElems(p, b, directRouting)
}
