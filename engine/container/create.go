package container

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/container/checks"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
)

// Create makes a container from an image. Nothing is left when it fails.
func (s *Service) Create(ctx context.Context, o CreateOptions) (resp container.CreateResponse, err error) {
	resp.Warnings = []string{}
	if o.Config == nil {
		return resp, errclass.Invalid("config cannot be empty in order to create a container")
	}
	cfg, host := *o.Config, container.HostConfig{}
	if o.HostConfig != nil {
		host = *o.HostConfig
	}
	if o.Name != "" {
		if err := checkName(o.Name); err != nil {
			return resp, err
		}
	}
	// Before the image is asked for: a client that is told that it is missing pulls it.
	asked, askedHost := cfg, host
	if _, err := s.adapt(&asked, &askedHost); err != nil {
		return resp, err
	}
	if _, err := mounts.Resolve(&asked, &askedHost, mountsOf(s.index)); err != nil {
		return resp, err
	}
	if host.NetworkMode.IsContainer() && len(cfg.ExposedPorts) > 0 {
		return resp, errclass.Invalid("conflicting options: port exposing and the container type network mode")
	}
	img, err := s.deps.Images.Resolve(ctx, cfg.Image, o.Platform)
	if err != nil {
		return resp, err
	}
	mergeImage(&cfg, img)
	if err := checks.HealthAction(&cfg, &host); err != nil {
		return resp, err
	}
	warnings, err := s.adapt(&cfg, &host)
	if err != nil {
		return resp, err
	}
	resp.Warnings = append(resp.Warnings, warnings...)
	if w := platformWarning(img, o.Platform != nil); w != "" {
		resp.Warnings = append(resp.Warnings, w)
	}
	r := &record{
		Schema: schema, ID: id.New(), Created: time.Now().UTC(), Config: &cfg, HostConfig: &host,
		Image: string(img.ID), Manifest: &img.Manifest, Platform: img.Config.OS,
	}
	if r.Path, r.Args, err = command(&cfg); err != nil {
		return resp, err
	}
	if err = s.nameNamespaces(r); err != nil {
		return resp, err
	}
	if r.Networks, err = endpoints(&host, o.Networking); err != nil {
		return resp, err
	}
	if err = checkEndpoints(s.deps.Networks, r.Networks); err != nil {
		return resp, err
	}
	if r.Links, err = linksOf(s, &host); err != nil {
		return resp, err
	}
	if r.Mounts, err = mounts.Resolve(&cfg, &host, mountsOf(s.index)); err != nil {
		return resp, err
	}
	own, err := s.make(ctx, r, o.Name, img)
	if err != nil {
		return resp, err
	}
	own.emit(events.ActionCreate, nil)
	resp.ID = r.ID
	return resp, nil
}

// make takes what the container needs: name, directory, image, layer; then it writes
// the record, from which on the container exists.
func (s *Service) make(ctx context.Context, r *record, name string, img *image.Image) (own *owner, err error) {
	var takeBack undo.List
	defer func() {
		if uerr := takeBack.Run(); uerr != nil {
			s.log.Warn("undoing a create", "container", r.ID, "error", uerr)
		}
	}()
	if err := s.takeName(r, trimSlash(name)); err != nil {
		return nil, err
	}
	takeBack.Add(func() error { s.index.release(r.Name, r.ID); return nil })
	dir := s.dir(r.ID)
	if err := os.Mkdir(dir, 0o710); err != nil {
		return nil, err
	}
	takeBack.Add(func() error { return os.RemoveAll(dir) })
	lease, err := s.deps.Images.Lease(ctx, img, r.ID)
	if err != nil {
		return nil, err
	}
	takeBack.Add(func() error { return s.deps.Images.Release(context.WithoutCancel(ctx), r.ID) })
	if _, err := s.deps.Layers.Create(r.ID); err != nil {
		return nil, err
	}
	takeBack.Add(func() error { return s.deps.Layers.Remove(r.ID) })
	takeBack.Add(func() error { return dropVolumes(s.deps.Volumes, r, true) })
	if err := takeVolumes(s.deps.Volumes, r, lease.Lower); err != nil {
		return nil, err
	}
	if err := s.saveRecord(r); err != nil {
		return nil, err
	}
	takeBack.Keep()
	own = s.newOwner(r, fsm.State{Policy: policyOf(r.HostConfig), AutoRemove: r.HostConfig.AutoRemove}, nil, time.Time{})
	s.index.add(own)
	s.spawn(own)
	return own, nil
}

func (s *Service) takeName(r *record, name string) error {
	if name != "" {
		r.Name = name
		return s.index.reserve(name, r.ID)
	}
	for try := 0; ; try++ {
		r.Name = randomName(try)
		if err := s.index.reserve(r.Name, r.ID); err == nil || try > 100 {
			return err
		}
	}
}

func policyOf(h *container.HostConfig) fsm.Policy {
	p := fsm.Policy{Max: h.RestartPolicy.MaximumRetryCount}
	switch h.RestartPolicy.Name {
	case container.RestartPolicyAlways:
		p.Mode = fsm.Always
	case container.RestartPolicyOnFailure:
		p.Mode = fsm.OnFailure
	case container.RestartPolicyUnlessStopped:
		p.Mode = fsm.UnlessStopped
	}
	return p
}

// command joins entrypoint and command.
func command(c *container.Config) (path string, args []string, err error) {
	all := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(all) == 0 {
		return "", nil, errclass.Invalid("no command specified")
	}
	return all[0], all[1:], nil
}

// mergeImage fills in from the image what the request leaves open. What Config shares
// with the caller or the image is copied before it is changed.
func mergeImage(c *container.Config, img *image.Image) {
	i := img.Config.Config
	if c.User == "" {
		c.User = i.User
	}
	ports := networktypes.PortSet{}
	for p := range i.ExposedPorts {
		if port, err := networktypes.ParsePort(p); err == nil {
			ports[port] = struct{}{}
		}
	}
	for p := range c.ExposedPorts {
		ports[p] = struct{}{}
	}
	if c.ExposedPorts = ports; len(ports) == 0 {
		c.ExposedPorts = nil
	}
	env := slices.Clone(c.Env)
	for _, e := range i.Env {
		k, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(c.Env, func(u string) bool { uk, _, _ := strings.Cut(u, "="); return uk == k }) {
			env = append(env, e)
		}
	}
	c.Env = env
	labels := map[string]string{}
	for k, v := range i.Labels {
		labels[k] = v
	}
	for k, v := range c.Labels {
		labels[k] = v
	}
	c.Labels = labels
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(i.Cmd)
			c.ArgsEscaped = false
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(i.Entrypoint)
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil // --entrypoint "" resets the image's
	}
	if c.WorkingDir == "" {
		c.WorkingDir = i.WorkingDir
	}
	vols := map[string]struct{}{}
	maps.Copy(vols, i.Volumes)
	maps.Copy(vols, c.Volumes)
	if c.Volumes = vols; len(vols) == 0 {
		c.Volumes = nil
	}
	if c.StopSignal == "" {
		c.StopSignal = i.StopSignal
	}
	if len(c.Shell) == 0 {
		c.Shell = slices.Clone(i.Shell)
	}
	mergeHealth(c, img)
}

func mergeHealth(c *container.Config, img *image.Image) {
	i := img.Config.Config.Healthcheck
	if i == nil {
		return
	}
	if c.Healthcheck == nil {
		h := *i
		c.Healthcheck = &h
		return
	}
	h := *c.Healthcheck
	if len(h.Test) == 0 {
		h.Test = i.Test
	}
	if h.Interval == 0 {
		h.Interval = i.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = i.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = i.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = i.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = i.Retries
	}
	c.Healthcheck = &h
}

// endpoints are the networks a container is to be on: those of the request, or the one
// that its network mode names.
func endpoints(h *container.HostConfig, n *networktypes.NetworkingConfig) (map[string]*networktypes.EndpointSettings, error) {
	eps := map[string]*networktypes.EndpointSettings{}
	mode := h.NetworkMode
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
			eps[name] = ep.Copy()
		}
	}
	if name := string(mode); eps[name] == nil {
		eps[name] = &networktypes.EndpointSettings{}
	}
	return eps, nil
}

// nameNamespaces resolves the containers that modes name to full IDs, as Docker stores
// them, and takes over the host name of one whose network is joined.
func (s *Service) nameNamespaces(r *record) error {
	h := r.HostConfig
	// One that is not there yet is no error: it has to be when this one starts.
	if h.NetworkMode.IsContainer() {
		if o, err := s.index.get(h.NetworkMode.ConnectedContainer()); err == nil {
			h.NetworkMode = container.NetworkMode("container:" + o.id)
			other := o.rec.Load().Config
			r.Config.Hostname, r.Config.Domainname = other.Hostname, other.Domainname
		}
	}
	if h.PidMode.IsContainer() {
		if o, err := s.index.get(h.PidMode.Container()); err == nil {
			h.PidMode = container.PidMode("container:" + o.id)
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

// hostFile is a file the engine writes for a container, and where it is mounted.
func (s *Service) hostFile(id, name string) string { return filepath.Join(s.dir(id), name) }
