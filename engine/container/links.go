package container

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// link is a container that another one knows by an alias, on the default bridge: its hosts
// file and environment tell the address. On user-defined networks links are names in DNS
// and part of the endpoint's settings.
type link struct {
	Target string `json:"target"` // the container's ID
	Alias  string `json:"alias"`
}

// linksOf reads the links of a request. Errors are of class Invalid: were they NotFound,
// clients would take them for a missing image.
func linksOf(s *Service, h *container.HostConfig) ([]link, error) {
	if h.NetworkMode.IsUserDefined() {
		return nil, nil
	}
	var out []link
	for _, l := range h.Links {
		name, alias, err := links.Parse(l)
		if err != nil {
			return nil, err
		}
		target, err := s.index.get(name)
		for hops := 0; err == nil && target.rec.Load().HostConfig.NetworkMode.IsContainer(); hops++ {
			name = target.rec.Load().HostConfig.NetworkMode.ConnectedContainer()
			if target, err = s.index.get(name); hops > 100 {
				err = errors.New("containers join each other's networks in a circle")
			}
		}
		if err != nil {
			return nil, errclass.Invalid("could not get container for %s: %s", name, err.Error())
		}
		if target.rec.Load().HostConfig.NetworkMode.IsHost() {
			return nil, errclass.Invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		if !slices.ContainsFunc(out, func(o link) bool { return o.Alias == alias }) {
			out = append(out, link{target.id, alias})
		}
	}
	return out, nil
}

// linked is a container that a link means, as it is now.
type linked struct {
	link
	o  *owner
	r  *record
	ep *networktypes.EndpointSettings // on the default bridge; nil when it is not there
}

// follow finds the containers that links mean; those that were removed are left out.
func follow(s *Service, r *record) []linked {
	var out []linked
	for _, l := range r.Links {
		if o := s.index.byFullID(l.Target); o != nil {
			v := o.view.Load()
			rec := o.rec.Load()
			out = append(out, linked{l, o, rec, endpointsOf(rec, v)[networktypes.NetworkBridge]})
		}
	}
	return out
}

// shownLinks are a container's links as inspect shows them.
func shownLinks(s *Service, r *record) []string {
	var out []string
	for _, l := range follow(s, r) {
		out = append(out, "/"+l.r.Name+":/"+r.Name+"/"+l.Alias)
	}
	return out
}

// linkNames are the names that containers have by others' links ("/parent/alias"), by ID.
func linkNames(x *index) map[string][]string {
	out := map[string][]string{}
	for _, o := range x.all() {
		r := o.rec.Load()
		for _, l := range r.Links {
			out[l.Target] = append(out[l.Target], "/"+r.Name+"/"+l.Alias)
		}
	}
	for _, names := range out {
		slices.Sort(names)
	}
	return out
}

// links tells the start what its links mean: lines for the hosts file, and variables. Those
// linked must run, on the default bridge.
func (st *starting) links() error {
	for _, l := range follow(st.s, st.r) {
		if !l.o.view.Load().Phase.Up() {
			return errclass.Internal("Cannot link to a non running container: /%s AS /%s/%s", l.r.Name, st.r.Name, l.Alias)
		}
		if l.ep == nil {
			return errclass.Internal("failed to set up container networking: cannot link to /%s, as it does not belong to the default network", l.r.Name)
		}
		names := l.Alias + " " + l.r.Config.Hostname
		if l.Alias != l.r.Name {
			names += " " + l.r.Name
		}
		for _, a := range []netip.Addr{l.ep.IPAddress, l.ep.GlobalIPv6Address} {
			if a.IsValid() {
				st.linkHosts = append(st.linkHosts, network.HostLine{Addr: a, Names: names})
			}
		}
	}
	return nil
}

// targets are the containers that a container's links mean.
func targets(r *record) []string {
	var out []string
	for _, l := range r.Links {
		out = append(out, l.Target)
	}
	return out
}

// linkEnv are the variables that a container gets by its links. Containers that do not run
// add none.
func linkEnv(s *Service, r *record) []string {
	var out []string
	for _, l := range follow(s, r) {
		if l.o.view.Load().Phase.Up() && l.ep != nil {
			out = append(out, links.Vars("/"+r.Name+"/"+l.Alias, l.ep.IPAddress.String(), l.r.Config.Env, l.r.Config.ExposedPorts)...)
		}
	}
	return out
}

// relink tells those that link to a container its address after it started: it may be
// another one than before.
func relink(x *index, cid string, ep *networktypes.EndpointSettings) {
	if ep == nil {
		return
	}
	for _, o := range x.all() {
		for _, l := range o.rec.Load().Links {
			if l.Target == cid && o.view.Load().Phase.Up() {
				o.send(message{do: func(o *owner) {
					o.editFile("hosts", func(b []byte) []byte { return links.Readdress(b, l.Alias, ep.IPAddress, ep.GlobalIPv6Address) })
				}})
			}
		}
	}
}

// unlink removes a link by its name "/parent/alias".
func unlink(x *index, ref string) error {
	parent, alias, ok := strings.Cut(strings.Trim(ref, "/"), "/")
	if !ok {
		return errclass.Conflict("Conflict, cannot remove the default link name of the container")
	}
	o, err := x.get(parent)
	if errdefs.IsNotFound(err) {
		return errclass.NotFound("Cannot get parent /%s for link /%s", parent, ref)
	}
	if err != nil {
		return err
	}
	answer := make(chan error, 1)
	if !o.send(message{do: func(o *owner) { answer <- dropLink(o, alias) }}) {
		return errclass.NotFound("No such container: %s", parent)
	}
	return <-answer
}

func dropLink(o *owner, alias string) error {
	r := *o.rec.Load()
	i := slices.IndexFunc(r.Links, func(l link) bool { return l.Alias == alias })
	if i < 0 {
		return errclass.NotFound("Could not find entity for /%s/%s", r.Name, alias)
	}
	r.Links = slices.Delete(slices.Clone(r.Links), i, i+1)
	if err := o.s.saveRecord(&r); err != nil {
		return err
	}
	o.rec.Store(&r)
	if o.state.Phase.Up() {
		o.editFile("hosts", func(b []byte) []byte { return links.Drop(b, alias) })
		return o.s.deps.Networks.SetLinks(r.ID, targets(&r))
	}
	return nil
}

// checkEndpoints checks what a container asks of its networks. Those that are not there yet
// have to be when it starts.
func checkEndpoints(n Networks, nets map[string]*networktypes.EndpointSettings) error {
	var errs []string
	for name, ep := range nets {
		if err := n.CheckEndpoint(name, ep); err != nil {
			errs = append(errs, err.Error())
		}
	}
	switch slices.Sort(errs); len(errs) {
	case 0:
		return nil
	case 1:
		return errclass.Invalid("%s", errs[0])
	}
	for i, e := range errs {
		errs[i] = "* " + strings.ReplaceAll(e, "\n", "\n\t")
	}
	return errclass.Invalid("%s", strings.Join(errs, "\n"))
}
