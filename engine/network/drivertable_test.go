package network

import (
	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/remote"
	"github.com/gantry/gantry/engine/network/vlan"
	"github.com/gantry/gantry/engine/plugin"
)

// WithDrivers gives a configuration all drivers, as engine/drivers.go does.
func WithDrivers(cfg Config, plugins plugin.Source) Config {
	if plugins == nil {
		plugins = plugin.Default()
	}
	cfg.Drivers = Drivers{
		Networks: driver.Table{
			Builtin: map[string]driver.New{
				"bridge": bridge.New(bridge.Config{
					Given: cfg.Bridge, ICC: cfg.ICC, Masq: cfg.IPMasq, BindIP: cfg.DefaultBindIP, MTU: cfg.MTU, Log: cfg.Log,
				}),
				"macvlan": vlan.Macvlan, "ipvlan": vlan.Ipvlan,
				"host": driver.HostNetwork, "null": driver.NoNetwork, "overlay": driver.InSwarm,
			},
			Plugin: remote.New(plugins),
		},
		Predefined: map[string]string{NameBridge: "bridge", NameHost: "host", NameNone: "null"},
		IPAM:       remote.NewIPAM(plugins),
	}
	return cfg
}
