package engine

import (
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/remote"
	"github.com/gantry/gantry/engine/network/vlan"
	"github.com/gantry/gantry/engine/plugin"
)

// This file is the one place that says which drivers there are.

// networkDrivers are the drivers of networks. A name that is not here is a plugin's.
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
