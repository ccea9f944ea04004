package container

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/hostdev"
	"github.com/gantry/gantry/engine/container/logs"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/container/userdb"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/undo"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// runRun carries out a start and tells the owner how it went. It runs beside it.
func (o *owner) runRun(number uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), effectTimeout)
	defer cancel()
	st := &starting{o: o, s: o.s, r: o.rec.Load(), number: number}
	defer st.closeFiles()
	info, err := st.start(ctx)
	if err != nil {
		o.awaitArriving()
		o.closePending()
		code, err := startError(err, st.r.Path)
		o.send(message{ev: fsm.StartFailed{Run: number, Err: err, Code: code}})
		return
	}
	tellVolumes(o, events.ActionMount)
	o.send(message{
		do:   func(o *owner) { o.run = info },
		ev:   fsm.Started{Run: number},
		seen: func(o *owner) { o.attachRest(number) },
	})
}

// starting is one start in progress.
type starting struct {
	o      *owner
	s      *Service
	r      *record
	number uint64
	back   undo.List
	files  []*os.File // to close after the call, whatever happens
	rec    runRecord
	joined []specs.LinuxNamespaceType
	nsFDs  []*os.File
	mounts []specs.Mount

	linkHosts []network.HostLine
}

func (st *starting) closeFiles() {
	for _, f := range st.files {
		f.Close()
	}
}

// start takes what the run needs, one after the other, and starts it. When it fails
// nothing of the run is left.
func (st *starting) start(ctx context.Context) (_ *runInfo, err error) {
	defer func() {
		if err == nil {
			return
		}
		if uerr := st.back.Run(); uerr != nil {
			st.s.log.Warn("undoing a start", "container", st.o.id, "error", uerr)
		}
	}()
	st.o.waitForgotten(ctx)
	st.rec = runRecord{Schema: schema, Run: st.number, Phase: "starting"}
	file, err := st.s.openRun(st.o.id)
	if err != nil {
		return nil, err
	}
	st.files = append(st.files, file.f)
	st.back.Add(func() error { return st.s.dropRun(st.o.id) })
	if err := file.save(&st.rec); err != nil {
		return nil, err
	}
	if err := st.network(ctx); err != nil {
		return nil, err
	}
	if err := st.namespaces(); err != nil {
		return nil, err
	}
	req, err := st.request(ctx)
	if err != nil {
		return nil, err
	}
	// Where it will be and what it holds is on record before it runs: whoever finds it
	// half started can end it, or take it over with its network.
	if cg, err := oci.CgroupOf(ctx, st.o.id, req.Spec, req.SystemdCgroup); err == nil {
		st.rec.Cgroup = cg
	}
	if err := file.save(&st.rec); err != nil {
		return nil, err
	}
	started, err := st.launch(ctx, req)
	if err != nil {
		return nil, err
	}
	st.rec.Phase, st.rec.Pid, st.rec.StartTicks = "running", started.Pid, started.StartTicks
	st.rec.Started, st.rec.Cgroup = started.Started, started.Cgroup
	if err := file.save(&st.rec); err != nil {
		// It runs: without the record a crash of both processes would lose it, no more.
		st.s.log.Warn("recording a run", "container", st.o.id, "error", err)
	}
	st.back.Keep()
	relink(st.s.index, st.o.id, st.rec.Endpoints[networktypes.NetworkBridge])
	return infoOf(&st.rec), nil
}

func infoOf(r *runRecord) *runInfo {
	return &runInfo{
		number: r.Run, pid: r.Pid, started: r.Started, cgroup: r.Cgroup,
		sandbox: r.Sandbox, endpoints: r.Endpoints, ports: r.Ports,
	}
}

// network gets the sandbox and writes the files that say what is in it.
func (st *starting) network(ctx context.Context) error {
	h, cfg, id := st.r.HostConfig, st.r.Config, st.o.id
	if h.NetworkMode.IsContainer() {
		return st.joinNetwork(h.NetworkMode.ConnectedContainer())
	}
	if err := st.links(); err != nil {
		return err
	}
	eps := make(map[string]*networktypes.EndpointSettings, len(st.r.Networks))
	for n, e := range st.r.Networks {
		eps[n] = e.Copy()
	}
	req := sandboxRequest(st.r, eps)
	req.Links, req.LinkedTo = st.linkHosts, targets(st.r)
	sb, err := st.s.deps.Networks.Acquire(ctx, req)
	if err != nil {
		return prefix("failed to set up container networking: ", err)
	}
	st.back.Add(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
		defer cancel()
		return st.s.deps.Networks.Release(ctx, id)
	})
	if sb.NetNS != nil {
		st.files = append(st.files, sb.NetNS)
		st.join(specs.NetworkNamespace, sb.NetNS)
	}
	st.rec.Sandbox, st.rec.Endpoints, st.rec.Ports = &sb.Record, sb.Endpoints, sb.Ports
	for name, data := range map[string][]byte{
		"hosts": sb.Hosts, "resolv.conf": sb.ResolvConf, "hostname": []byte(cfg.Hostname + "\n"),
	} {
		path := st.s.hostFile(id, name)
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return err
		}
	}
	st.bindFiles(id)
	return nil
}

// sandboxRequest is what a container asks of the network, on the given networks.
func sandboxRequest(r *record, eps map[string]*networktypes.EndpointSettings) network.SandboxRequest {
	h, cfg := r.HostConfig, r.Config
	return network.SandboxRequest{
		ContainerID: r.ID, Name: r.Name, Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		Endpoints: eps, Ports: h.PortBindings, Exposed: cfg.ExposedPorts, PublishAll: h.PublishAllPorts,
		DNS: h.DNS, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts,
		Sysctls: maps.Clone(h.Sysctls),
	}
}

// bindFiles mounts /etc/hosts and its like, unless the user mounts something there.
func (st *starting) bindFiles(id string) {
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		dest := "/etc/" + name
		taken := false
		for _, m := range st.r.Mounts {
			taken = taken || m.Destination == dest
		}
		if !taken {
			st.mounts = append(st.mounts, specs.Mount{
				Destination: dest, Type: "bind",
				Source: st.s.hostFile(id, name), Options: []string{"rbind", "rprivate"},
			})
		}
	}
}

func (st *starting) join(t specs.LinuxNamespaceType, f *os.File) {
	st.joined = append(st.joined, t)
	st.nsFDs = append(st.nsFDs, f)
}

func (st *starting) joinNetwork(ref string) error {
	other, err := st.s.index.get(ref)
	if err != nil {
		// Not of class NotFound: it is not the container that was asked for.
		return errclass.Internal("joining network namespace of container: %s", err.Error())
	}
	if v := other.view.Load(); v.Phase == fsm.Restarting {
		return errclass.Conflict("container %s is restarting, wait until the container is running", other.id)
	}
	f, err := other.namespace("net")
	if err != nil {
		if errors.Is(err, fsm.ErrNotRunning) {
			return errclass.Conflict("cannot join network of a non running container: %s", other.id)
		}
		return err
	}
	st.files = append(st.files, f)
	st.join(specs.NetworkNamespace, f)
	st.bindFiles(other.id)
	return nil
}

// namespaces joins what other modes name.
func (st *starting) namespaces() error {
	if h := st.r.HostConfig; h.PidMode.IsContainer() {
		other, err := st.s.index.get(h.PidMode.Container())
		if err != nil {
			return err
		}
		f, err := other.namespace("pid")
		if err != nil {
			if errors.Is(err, fsm.ErrNotRunning) {
				return errclass.Conflict("cannot join PID namespace of a non running container: container %s is not running", other.id)
			}
			return err
		}
		st.files = append(st.files, f)
		st.join(specs.PIDNamespace, f)
	}
	return nil
}

// namespace opens a namespace of the container's first process; the start time tells
// that the pid is still its own. The caller closes it. fsm.ErrNotRunning without one.
func (o *owner) namespace(kind string) (*os.File, error) {
	v := o.view.Load()
	if !v.Phase.Up() || v.run == nil {
		return nil, fsm.ErrNotRunning
	}
	pid := strconv.Itoa(v.run.pid)
	before, err := shim.StartTicks(v.run.pid)
	if err != nil {
		return nil, fsm.ErrNotRunning
	}
	f, err := os.Open("/proc/" + pid + "/ns/" + kind)
	if err != nil {
		return nil, fsm.ErrNotRunning
	}
	// Had the process ended meanwhile, what was opened might be another's.
	if now := o.view.Load(); !now.Phase.Up() || now.Run != v.Run {
		f.Close()
		return nil, fsm.ErrNotRunning
	}
	if after, err := shim.StartTicks(v.run.pid); err != nil || after != before {
		f.Close()
		return nil, fsm.ErrNotRunning
	}
	return f, nil
}

// rootfs is how the container's root is put together: mounted as an overlay of the writable
// layer above the image's, or complete in the layer, as the storage driver has it.
func rootfs(l storage.Layer, lower []string, readonly bool) oci.Rootfs {
	if l.Path != "" {
		return oci.Rootfs{Path: l.Path, Readonly: readonly}
	}
	return oci.Rootfs{Overlay: &oci.Overlay{Lower: lower, Upper: l.Upper, Work: l.Work}, Readonly: readonly}
}

// request puts together what the shim is asked.
func (st *starting) request(ctx context.Context) (*shim.StartRequest, error) {
	lease, err := st.s.deps.Images.LeaseOf(ctx, st.o.id)
	if err != nil {
		return nil, err
	}
	layer, err := st.s.deps.Layers.Get(st.o.id)
	if err != nil {
		return nil, err
	}
	user, err := st.user(layer.Dirs(lease.Lower))
	if err != nil {
		return nil, err
	}
	for _, m := range st.r.Mounts {
		if err := mounts.MakeSource(m); err != nil {
			return nil, err
		}
		st.mounts = append(st.mounts, mounts.Spec(m))
	}
	h := st.r.HostConfig
	in := spec.Input{
		ID: st.o.id, Config: st.r.Config, Host: h, Path: st.r.Path, Args: st.r.Args, User: user,
		Mounts: st.mounts, Held: st.s.held, Joined: st.joined, CgroupParent: st.s.cfg.CgroupParent, SystemdCgroup: st.s.cfg.SystemdCgroup,
		NoNewPrivileges: st.s.cfg.NoNewPrivileges, BlockDevice: hostdev.Block,
		ConsoleSize: h.ConsoleSize, LinkEnv: linkEnv(st.s, st.r),
	}
	if in.Devices, err = hostdev.Mapped(h.Devices); err != nil {
		return nil, err
	}
	if h.Privileged {
		if in.AllDevices, err = hostdev.Below("/dev"); err != nil {
			return nil, err
		}
	}
	sp, err := spec.Build(in)
	if err != nil {
		return nil, err
	}
	req := &shim.StartRequest{
		Key: st.o.key(st.number), Spec: sp, NamespaceFDs: st.joined,
		Rootfs:    rootfs(layer, lease.Lower, h.ReadonlyRootfs),
		OpenStdin: st.r.Config.OpenStdin, StdinOnce: st.r.Config.StdinOnce,
		ConsoleSize: oci.WinSize{Rows: uint16(h.ConsoleSize[0]), Cols: uint16(h.ConsoleSize[1])},
		InitReaper:  h.Init != nil && *h.Init || h.Init == nil && st.s.cfg.Init,

		SystemdCgroup: st.s.cfg.SystemdCgroup,
	}
	if req.Log, err = logs.ConfigOf(st.s.logPath(st.o.id), h.LogConfig); err != nil {
		return nil, err
	}
	if req.Log != nil {
		req.Log.Attrs = logs.Attrs(logs.Subject{
			ID: st.r.ID, Name: st.r.Name, ImageID: st.r.Image, ImageName: st.r.Config.Image, Command: append([]string{st.r.Path}, st.r.Args...),
		}, st.r.Config, h.LogConfig.Config)
	}
	if req.Seccomp, req.SeccompFlags, err = st.s.filter(h, sp); err != nil {
		return nil, err
	}
	return req, nil
}

func (st *starting) user(layers []string) (spec.User, error) {
	return resolveUser(&st.o.users, layers, st.r.Config.User, st.r.HostConfig.GroupAdd)
}

func resolveUser(users *userdb.Cache, layers []string, name string, groups []string) (spec.User, error) {
	files, err := users.Read(userdb.Root(layers))
	if err != nil {
		return spec.User{}, fmt.Errorf("reading the container's users: %w", err)
	}
	u, err := files.Resolve(name, groups)
	return spec.User{UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home}, err
}

// launch hands the request to the shim, with the clients that are already attached.
func (st *starting) launch(ctx context.Context, req *shim.StartRequest) (*shim.Started, error) {
	st.o.awaitArriving()
	clients := st.o.takePending()
	files := append([]*os.File{}, st.nsFDs...)
	for _, c := range clients {
		req.Attach = append(req.Attach, c.spec)
		files = append(files, c.conn)
	}
	defer func() {
		for _, c := range clients {
			c.conn.Close()
		}
	}()
	started, err := st.s.deps.Shim.Start(ctx, req, files)
	if err != nil {
		return nil, &runtimeError{err}
	}
	return started, nil
}

// releaseTimeout bounds how long giving back a run's network may take.
const releaseTimeout = 20 * time.Second

// tearDown gives back what a run held. What fails is said and left to Restore.
func (o *owner) tearDown(ctx context.Context, run uint64) {
	o.streams.Lock()
	o.streams.live = nil
	o.streams.Unlock()
	o.s.execs.ended(o)
	forgetRun(o, run)
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if err := o.s.deps.Networks.Release(ctx, o.id); err != nil {
		o.s.log.Warn("releasing a container's network", "container", o.id, "error", err)
	}
	tellVolumes(o, events.ActionUnmount)
	if o.rec.Load().HostConfig.AutoRemove {
		return // removal drops the run's record: until then it tells that there was one
	}
	if err := o.s.dropRun(o.id); err != nil {
		o.s.log.Warn("removing a run's record", "container", o.id, "error", err)
	}
}

// forgetRun lets the shim drop a run that ended. Its tidying (cgroup) waits for the kernel:
// it goes on beside, and the next start or the removal waits for it.
func forgetRun(o *owner, run uint64) {
	done := make(chan struct{})
	o.forgotten.Store(&done)
	o.s.beside(func() {
		defer close(done)
		o.s.forget(o.key(run))
	})
}

// forget lets the shim drop what it held of a process that ended.
func (s *Service) forget(key shim.Key) {
	ctx, cancel := context.WithTimeout(context.Background(), effectTimeout)
	defer cancel()
	err := s.deps.Shim.Forget(ctx, key)
	for try := 1; try < forgetTries && errors.Is(err, errdefs.ErrUnavailable); try++ {
		// The shim died over it. The next call waits for the successor, which knows the
		// process and has its cgroup to remove.
		err = s.deps.Shim.Forget(ctx, key)
	}
	if err != nil {
		s.log.Warn("ending a process in the shim", "container", key.Container, "exec", key.Exec, "error", err)
	}
}

// forgetTries bounds how many shims may die over one request.
const forgetTries = 3

// waitForgotten waits until the shim has let go of the run before.
func (o *owner) waitForgotten(ctx context.Context) {
	done := o.forgotten.Load()
	if done == nil {
		return
	}
	select {
	case <-*done:
	case <-ctx.Done():
	}
}
