package network

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/opts"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type ipamFlags struct {
	driver                     string
	subnets, ipRanges, gateway []string
	aux, opts                  *opts.Map
}

func newCreateCommand(cli *command.Cli) *cobra.Command {
	var o client.NetworkCreateOptions
	var ipv4, ipv6 bool
	ipam := ipamFlags{aux: opts.NewMap(nil), opts: opts.NewMap(nil)}
	driverOpts, labels := opts.NewMap(nil), opts.NewList(opts.Label)
	cmd := &cobra.Command{
		Use: "create [OPTIONS] NETWORK", Short: "Create a network", Args: command.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.IPAM, err = ipam.config(); err != nil {
				return err
			}
			if cmd.Flags().Changed("ipv4") {
				o.EnableIPv4 = &ipv4
			}
			if cmd.Flags().Changed("ipv6") {
				o.EnableIPv6 = &ipv6
			}
			o.Options, o.Labels = driverOpts.All(), opts.KVToMap(labels.All())
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.NetworkCreate(cmd.Context(), args[0], o)
			if err != nil {
				return err
			}
			for _, w := range r.Warning {
				fmt.Fprintln(cli.Err, "WARNING:", w)
			}
			fmt.Fprintln(cli.Out, r.ID)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	fs.VarP(driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(labels, "label", "Set metadata on a network")
	fs.BoolVar(&o.Internal, "internal", false, "Restrict external access to the network")
	fs.BoolVar(&ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	fs.BoolVar(&ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	fs.BoolVar(&o.Attachable, "attachable", false, "Enable manual container attachment")
	fs.BoolVar(&o.Ingress, "ingress", false, "Create swarm routing-mesh network")
	fs.StringVar(&o.Scope, "scope", "", "Control the network's scope")
	fs.BoolVar(&o.ConfigOnly, "config-only", false, "Create a configuration only network")
	fs.StringVar(&o.ConfigFrom, "config-from", "", "The network from which to copy the configuration")
	fs.StringVar(&ipam.driver, "ipam-driver", "default", "IP Address Management Driver")
	fs.StringSliceVar(&ipam.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	fs.StringSliceVar(&ipam.ipRanges, "ip-range", nil, "Allocate container ip from a sub-range")
	fs.StringSliceVar(&ipam.gateway, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	fs.Var(ipam.aux, "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	fs.Var(ipam.opts, "ipam-opt", "Set IPAM driver specific options")
	return cmd
}

// config puts every range, gateway and auxiliary address with the subnet it lies in.
func (f *ipamFlags) config() (*networktypes.IPAM, error) {
	if len(f.subnets) < len(f.ipRanges) || len(f.subnets) < len(f.gateway) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var cfgs []networktypes.IPAMConfig
	for _, s := range f.subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: invalid CIDR address: %s", s, s)
		}
		for _, c := range cfgs {
			if c.Subnet.Overlaps(p) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		cfgs = append(cfgs, networktypes.IPAMConfig{Subnet: p, AuxAddress: map[string]netip.Addr{}})
	}
	find := func(a netip.Addr) *networktypes.IPAMConfig {
		for i := range cfgs {
			if cfgs[i].Subnet.Contains(a) {
				return &cfgs[i]
			}
		}
		return nil
	}
	for _, r := range f.ipRanges {
		p, err := netip.ParsePrefix(r)
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", r)
		}
		c := find(p.Addr())
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for range %s", r)
		}
		if c.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", r, c.IPRange, c.Subnet)
		}
		c.IPRange = p
	}
	for _, g := range f.gateway {
		a, err := netip.ParseAddr(g)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway address: %s", g)
		}
		c := find(a)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", g)
		}
		if c.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", g, c.Gateway, c.Subnet)
		}
		c.Gateway = a
	}
	for k, v := range f.aux.All() {
		a, err := netip.ParseAddr(strings.TrimSpace(v))
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address: %s", v)
		}
		c := find(a)
		if c == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", v)
		}
		c.AuxAddress[k] = a
	}
	return &networktypes.IPAM{Driver: f.driver, Config: cfgs, Options: f.opts.All()}, nil
}
