package validate

import (
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// Request is what a create request says, raised to the newest API's types.
type Request struct {
	Name       string // "" makes one up
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *networktypes.NetworkingConfig
}

// Early refuses what is wrong with a request independently of the image: otherwise a client
// would be answered that the image is missing and pull it first. It does not change the request.
func (v *Validator) Early(q Request) error {
	if q.Config == nil {
		return errclass.Invalid("config cannot be empty in order to create a container")
	}
	if q.Name != "" {
		if err := Name(q.Name); err != nil {
			return err
		}
	}
	cfg, host := q.copies()
	if _, err := v.Normalize(cfg, host); err != nil {
		return err
	}
	if _, err := mounts.Resolve(cfg, host, v.mountsOf); err != nil {
		return err
	}
	if host.NetworkMode.IsContainer() && len(q.Config.ExposedPorts) > 0 {
		return errclass.Invalid("conflicting options: port exposing and the container type network mode")
	}
	return nil
}

func (q Request) copies() (*container.Config, *container.HostConfig) {
	cfg, host := *q.Config, container.HostConfig{}
	if q.HostConfig != nil {
		host = *q.HostConfig
	}
	return &cfg, &host
}

// Record makes of a request, and of its image, the record of a container that has an ID but no
// name yet. asked says that the request chose the platform. What the request and the image
// share with the record is not changed.
func (v *Validator) Record(q Request, img *image.Image, asked bool) (r *store.Record, warnings []string, err error) {
	cfg, host := q.copies()
	mergeImage(cfg, img)
	if err := checkHealthAction(cfg, host); err != nil {
		return nil, nil, err
	}
	if warnings, err = v.Normalize(cfg, host); err != nil {
		return nil, nil, err
	}
	if w := platformWarning(img, asked); w != "" {
		warnings = append(warnings, w)
	}
	r = &store.Record{
		Schema: store.Schema, ID: id.New(), Created: time.Now().UTC(), Config: cfg, HostConfig: host,
		Image: string(img.ID), Manifest: &img.Manifest, Platform: img.Config.OS,
	}
	if r.Path, r.Args, err = command(cfg); err != nil {
		return nil, nil, err
	}
	if err = v.nameNamespaces(r); err != nil {
		return nil, nil, err
	}
	if r.Networks, err = endpoints(host, cfg.NetworkDisabled, q.Networking); err != nil {
		return nil, nil, err
	}
	if err = checkEndpoints(v.networks, r.Networks); err != nil {
		return nil, nil, err
	}
	if r.Links, err = links.Of(v.index, host); err != nil {
		return nil, nil, err
	}
	if r.Mounts, err = mounts.Resolve(cfg, host, v.mountsOf); err != nil {
		return nil, nil, err
	}
	return r, warnings, nil
}

// mountsOf tells the mounts of another container, for --volumes-from.
func (v *Validator) mountsOf(ref string) ([]mounts.Point, error) {
	c, err := v.index.Get(ref)
	if err != nil {
		// Not of class NotFound: clients would take it for the image and pull.
		return nil, errclass.Invalid("%s", err.Error())
	}
	return c.Record().Mounts, nil
}

// nameNamespaces resolves the containers that modes name to full IDs, as Docker stores
// them, and takes over the host name of one whose network is joined.
func (v *Validator) nameNamespaces(r *store.Record) error {
	h := r.HostConfig
	// One that is not there yet is no error: it has to be when this one starts.
	if h.NetworkMode.IsContainer() {
		if o, err := v.index.Get(h.NetworkMode.ConnectedContainer()); err == nil {
			h.NetworkMode = container.NetworkMode("container:" + o.ID)
			other := o.Record().Config
			r.Config.Hostname, r.Config.Domainname = other.Hostname, other.Domainname
		}
	}
	if h.PidMode.IsContainer() {
		if o, err := v.index.Get(h.PidMode.Container()); err == nil {
			h.PidMode = container.PidMode("container:" + o.ID)
		}
	}
	if h.IpcMode.IsContainer() {
		return errclass.NotImplemented("joining the IPC namespace of another container is not built yet")
	}
	if r.Config.Hostname == "" {
		r.Config.Hostname = r.ID[:id.ShortLen]
		if h.NetworkMode.IsHost() || h.UTSMode.IsHost() {
			if name, err := os.Hostname(); err == nil {
				r.Config.Hostname = name
			}
		}
	}
	return nil
}

// endpoints are the networks a container is to be on: those of the request, or the one
// that its network mode names; disabled leaves it the loopback interface.
func endpoints(h *container.HostConfig, disabled bool, n *networktypes.NetworkingConfig) (map[string]*networktypes.EndpointSettings, error) {
	eps := map[string]*networktypes.EndpointSettings{}
	mode := h.NetworkMode
	if disabled {
		eps[networktypes.NetworkNone] = &networktypes.EndpointSettings{}
		return eps, nil
	}
	if mode.IsContainer() {
		if n != nil && len(n.EndpointsConfig) > 0 {
			return nil, errclass.Invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		return eps, nil
	}
	if n != nil {
		for name, ep := range n.EndpointsConfig {
			if name == networktypes.NetworkDefault {
				name = networktypes.NetworkBridge
			}
			if ep == nil {
				return nil, errclass.Invalid("invalid config for network %s: EndpointsConfig is nil", name)
			}
			eps[name] = Endpoint(ep)
		}
	}
	if name := string(mode); eps[name] == nil {
		eps[name] = &networktypes.EndpointSettings{}
	}
	return eps, nil
}

// Endpoint is a copy of a request's settings without what is the engine's to tell: addresses
// that were given, IDs, names. Who copies another container's answers sends them; they are
// ignored, as Docker does.
func Endpoint(ep *networktypes.EndpointSettings) *networktypes.EndpointSettings {
	c := ep.Copy()
	return &networktypes.EndpointSettings{
		IPAMConfig: c.IPAMConfig, Links: c.Links, Aliases: c.Aliases, DriverOpts: c.DriverOpts,
		GwPriority: c.GwPriority, MacAddress: c.MacAddress,
	}
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
