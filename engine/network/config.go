package network

import (
	"github.com/gantry/gantry/engine/network/conf"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/keep"
)

// Names of the predefined networks.
const (
	NameBridge = "bridge"
	NameHost   = "host"
	NameNone   = "none"
)

// Keeper holds descriptors beyond the daemon's life (the shim's fd store).
type Keeper = keep.Keeper

// KeeperLister is a Keeper that can be asked for everything it holds.
type KeeperLister = keep.Lister

// Pool is a range that subnets of new networks are cut from (default-address-pools).
type Pool = ipam.Pool

// Config is what the daemon's settings say about networks.
type Config = conf.Config

// DefaultConfig is Docker's configuration of networks for a data-root.
func DefaultConfig(dataRoot string) Config { return conf.Default(dataRoot) }
