package links

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// Of reads the links of a request. Errors are of class Invalid: were they NotFound,
// clients would take them for a missing image.
func Of(x *store.Index, h *container.HostConfig) ([]store.Link, error) {
	if h.NetworkMode.IsUserDefined() {
		return nil, nil
	}
	var out []store.Link
	for _, l := range h.Links {
		name, alias, err := Parse(l)
		if err != nil {
			return nil, err
		}
		target, err := x.Get(name)
		for hops := 0; err == nil && target.Record().HostConfig.NetworkMode.IsContainer(); hops++ {
			name = target.Record().HostConfig.NetworkMode.ConnectedContainer()
			if target, err = x.Get(name); hops > 100 {
				err = errors.New("containers join each other's networks in a circle")
			}
		}
		if err != nil {
			return nil, errclass.Invalid("could not get container for %s: %s", name, err.Error())
		}
		if target.Record().HostConfig.NetworkMode.IsHost() {
			return nil, errclass.Invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		if !slices.ContainsFunc(out, func(l store.Link) bool { return l.Alias == alias }) {
			out = append(out, store.Link{Target: target.ID, Alias: alias})
		}
	}
	return out, nil
}

// linked is a container that a link means, as it is now.
type linked struct {
	store.Link
	v  *store.View
	r  *store.Record
	ep *networktypes.EndpointSettings // on the default bridge; nil when it is not there
}

// follow finds the containers that links mean; those that were removed are left out.
func follow(x *store.Index, r *store.Record) []linked {
	var out []linked
	for _, l := range r.Links {
		if c := x.ByID(l.Target); c != nil {
			v, rec := c.View(), c.Record()
			out = append(out, linked{l, v, rec, v.Endpoints(rec)[networktypes.NetworkBridge]})
		}
	}
	return out
}

// Shown are a container's links as inspect shows them.
func Shown(x *store.Index, r *store.Record) []string {
	var out []string
	for _, l := range follow(x, r) {
		out = append(out, "/"+l.r.Name+":/"+r.Name+"/"+l.Alias)
	}
	return out
}

// Names are the names that containers have by others' links ("/parent/alias"), by ID.
func Names(x *store.Index) map[string][]string {
	out := map[string][]string{}
	for _, c := range x.All() {
		r := c.Record()
		for _, l := range r.Links {
			out[l.Target] = append(out[l.Target], "/"+r.Name+"/"+l.Alias)
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// Hosts are the lines that a container's links add to its hosts file when it starts. Those
// linked must run, on the default bridge.
func Hosts(x *store.Index, r *store.Record) ([]network.HostLine, error) {
	var out []network.HostLine
	for _, l := range follow(x, r) {
		if !l.v.Phase.Up() {
			return nil, errclass.Internal("Cannot link to a non running container: /%s AS /%s/%s", l.r.Name, r.Name, l.Alias)
		}
		if l.ep == nil {
			return nil, errclass.Internal("failed to set up container networking: cannot link to /%s, as it does not belong to the default network", l.r.Name)
		}
		names := l.Alias + " " + l.r.Config.Hostname
		if l.Alias != l.r.Name {
			names += " " + l.r.Name
		}
		for _, a := range []netip.Addr{l.ep.IPAddress, l.ep.GlobalIPv6Address} {
			if a.IsValid() {
				out = append(out, network.HostLine{Addr: a, Names: names})
			}
		}
	}
	return out, nil
}

// Targets are the containers that a container's links mean.
func Targets(r *store.Record) []string {
	var out []string
	for _, l := range r.Links {
		out = append(out, l.Target)
	}
	return out
}

// Env are the variables that a container gets by its links. Containers that do not run
// add none.
func Env(x *store.Index, r *store.Record) []string {
	var out []string
	for _, l := range follow(x, r) {
		if l.v.Phase.Up() && l.ep != nil {
			out = append(out, Vars("/"+r.Name+"/"+l.Alias, l.ep.IPAddress.String(), l.r.Config.Env, l.r.Config.ExposedPorts)...)
		}
	}
	return out
}
