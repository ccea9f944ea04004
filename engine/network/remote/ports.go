package remote

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/moby/moby/api/types/network"
)

// The labels of ports in options, in the protocol's words.
const (
	labelPorts   = "com.docker.network.portmap"
	labelExposed = "com.docker.network.endpoint.exposedports"
)

// maxPublished bounds what a plugin may say that it published.
const maxPublished = 1 << 16

// binding and exposure are a published and an exposed port in the protocol.
type binding struct {
	Proto                 uint8
	IP                    string
	Port                  uint16
	HostIP                string
	HostPort, HostPortEnd uint16
}

type exposure struct {
	Proto uint8
	Port  uint16
}

// protocols are the numbers that plugins know protocols by.
func protocols() map[network.IPProtocol]uint8 {
	return map[network.IPProtocol]uint8{network.TCP: 6, network.UDP: 17, network.SCTP: 132}
}

// portOptions are an endpoint's ports as plugins are told.
func portOptions(e driver.Endpoint) map[string]any {
	numbers := protocols()
	published, exposed := []binding{}, []exposure{}
	for p, bs := range e.Ports {
		for _, b := range bs {
			x := binding{Proto: numbers[p.Proto()], Port: p.Num()}
			if b.HostIP.IsValid() {
				x.HostIP = b.HostIP.String()
			}
			first, last, isRange := strings.Cut(b.HostPort, "-")
			x.HostPort, x.HostPortEnd = number(first), number(first)
			if isRange {
				x.HostPortEnd = number(last)
			}
			published = append(published, x)
		}
		if _, too := e.Exposed[p]; !too {
			exposed = append(exposed, exposure{numbers[p.Proto()], p.Num()})
		}
	}
	for p := range e.Exposed {
		exposed = append(exposed, exposure{numbers[p.Proto()], p.Num()})
	}
	slices.SortFunc(published, func(a, b binding) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.HostIP, b.HostIP))
	})
	slices.SortFunc(exposed, func(a, b exposure) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proto, b.Proto))
	})
	return map[string]any{labelPorts: published, labelExposed: exposed}
}

// number reads a port of the API; the host's choice, and what is none, is 0.
func number(s string) uint16 {
	n, _ := strconv.ParseUint(s, 10, 16)
	return uint16(n)
}

// Publish implements driver.Publisher: ProgramExternalConnectivity, and EndpointOperInfo for
// what came of it. A plugin that has no such methods publishes nothing.
func (d *Driver) Publish(ctx context.Context, n driver.Network, e driver.Endpoint) ([]ports.Mapping, error) {
	ask := map[string]any{"NetworkID": n.ID, "EndpointID": e.ID, "Options": portOptions(e)}
	err := d.call(ctx, n.Driver, "ProgramExternalConnectivity", ask, nil)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var info struct {
		Value struct {
			Ports []binding `json:"com.docker.network.portmap"`
		}
	}
	err = d.call(ctx, n.Driver, "EndpointOperInfo", map[string]string{"NetworkID": n.ID, "EndpointID": e.ID}, &info)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []ports.Mapping
	for _, b := range info.Value.Ports[:min(len(info.Value.Ports), maxPublished)] {
		m := ports.Mapping{ContainerPort: b.Port, HostPort: b.HostPort}
		for name, num := range protocols() {
			if num == b.Proto {
				m.Proto = string(name)
			}
		}
		// What cannot be is left out: it is only shown.
		if a, err := netip.ParseAddr(b.HostIP); err == nil && a.Zone() == "" {
			m.HostIP = a.Unmap()
		}
		if m.Proto != "" && m.ContainerPort != 0 {
			out = append(out, m)
		}
	}
	return out, nil
}

// Unpublish implements driver.Publisher: RevokeExternalConnectivity.
func (d *Driver) Unpublish(ctx context.Context, n driver.Network, e driver.Endpoint) error {
	err := d.call(ctx, n.Driver, "RevokeExternalConnectivity", map[string]string{"NetworkID": n.ID, "EndpointID": e.ID}, nil)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}
