// Package bundle assembles the request by which the shim starts a container's process: root,
// user, OCI specification, seccomp filter and log. It also translates the shim's errors into
// Docker's messages.
package bundle

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/container/hostdev"
	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/userdb"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/attrs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Images is what bundles ask of engine/image.
type Images interface {
	// LeaseOf is the hold a container has already; class NotFound when none.
	LeaseOf(ctx context.Context, containerID string) (*image.RootfsLease, error)
}

// Layers is what bundles ask of storage's writable layers.
type Layers interface {
	// Get finds a container's layer; class NotFound without.
	Get(containerID string) (storage.Layer, error)
}

// Views opens roots of containers; see package filesystem.
type Views interface {
	Open(ctx context.Context, c *store.Container) (*os.File, error)
}

// Config is what the daemon's settings say about processes.
type Config struct {
	CgroupParent    string // "" is "/docker", with SystemdCgroup "system.slice"
	SystemdCgroup   bool
	Init            bool // the default of --init
	NoNewPrivileges bool // the default of --security-opt no-new-privileges
	// SeccompProfile is a profile's JSON, "unconfined", or "" for the built-in one.
	SeccompProfile string
	Logs           logs.Drivers // those there are
	// Runtimes are the OCI runtimes by name; nil is our own.
	Runtimes map[string]*ociruntime.Ref
}

// Builder makes requests for the shim. Safe for concurrent use.
type Builder struct {
	cfg      Config
	images   Images
	layers   Layers
	files    *store.Files
	index    *store.Index
	compile  SeccompCompiler
	held     []string // the daemon's own capabilities
	programs seccompCache
	views    Views
	users    *userdb.Cache
}

// New makes a builder. Without compile the runtime compiles the seccomp profile itself.
func New(cfg Config, images Images, layers Layers, views Views, files *store.Files, index *store.Index, compile SeccompCompiler) (*Builder, error) {
	held, err := heldCapabilities()
	if err != nil {
		return nil, err
	}
	users, err := userdb.NewCache()
	if err != nil {
		return nil, err
	}
	return &Builder{
		cfg: cfg, images: images, layers: layers, files: files, index: index, compile: compile,
		held: held, views: views, users: users,
	}, nil
}

// Joined are namespaces that a container's first process gets by descriptor, in the order in
// which the descriptors come with the request.
type Joined []specs.LinuxNamespaceType

// Start is the request to start a run of r. extra are the mounts of files that the engine
// writes.
func (b *Builder) Start(ctx context.Context, r *store.Record, key shim.Key, joined Joined, extra []specs.Mount) (*shim.StartRequest, error) {
	root, err := b.rootOf(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	user, err := b.user(ctx, r, root, r.Config.User)
	if err != nil {
		return nil, err
	}
	all := extra
	for _, m := range r.Mounts {
		if err := mounts.MakeSource(m); err != nil {
			return nil, err
		}
		all = append(all, mounts.Spec(m))
	}
	h := r.HostConfig
	in := spec.Input{
		ID: r.ID, Config: r.Config, Host: h, Path: r.Path, Args: r.Args, User: user,
		Mounts: all, Held: b.held, Joined: joined, CgroupParent: b.cfg.CgroupParent, SystemdCgroup: b.cfg.SystemdCgroup,
		NoNewPrivileges: b.cfg.NoNewPrivileges, BlockDevice: hostdev.Block,
		ConsoleSize: h.ConsoleSize, LinkEnv: links.Env(b.index, r),
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
	rt, err := b.runtime(h.Runtime)
	if err != nil {
		return nil, err
	}
	req := &shim.StartRequest{
		Runtime: rt,
		Key:     key, Spec: sp, NamespaceFDs: joined,
		Rootfs:    root.rootfs(h),
		OpenStdin: r.Config.OpenStdin, StdinOnce: r.Config.StdinOnce,
		ConsoleSize: oci.WinSize{Rows: uint16(h.ConsoleSize[0]), Cols: uint16(h.ConsoleSize[1])},
		InitReaper:  h.Init != nil && *h.Init || h.Init == nil && b.cfg.Init,

		SystemdCgroup: b.cfg.SystemdCgroup,
	}
	if req.Log, err = b.log(r); err != nil {
		return nil, err
	}
	if req.Seccomp, req.SeccompFlags, err = b.filter(h, sp, rt != nil); err != nil {
		return nil, err
	}
	return req, nil
}

// log says what the shim shall write of a container's output; nil: nothing.
func (b *Builder) log(r *store.Record) (*logs.Config, error) {
	lc := r.HostConfig.LogConfig
	c, err := b.cfg.Logs.Configure(lc.Type, b.files.Log(r.ID), lc.Config)
	if err != nil || c == nil {
		return nil, err
	}
	c.Attrs = attrs.Of(attrs.Container{
		Subject: logs.Subject{ID: r.ID, Name: r.Name, ImageID: r.Image, ImageName: r.Config.Image, Command: append([]string{r.Path}, r.Args...)},
		Labels:  r.Config.Labels, Env: r.Config.Env,
	}, lc.Config)
	if c.Plain != nil {
		c.Plain.Attrs = c.Attrs
	}
	return c, nil
}

// runtime finds a container's OCI runtime, which the daemon's settings may not have any
// more; nil is our own. Class InvalidArgument then.
func (b *Builder) runtime(name string) (*ociruntime.Ref, error) {
	r, ok := b.cfg.Runtimes[name]
	if !ok && name != "" && len(b.cfg.Runtimes) != 0 {
		return nil, errclass.Invalid("unknown or invalid runtime name: %s", name)
	}
	return r, nil
}

// Exec is the request for a further process: the container's own settings, with the exec's
// over them.
func (b *Builder) Exec(ctx context.Context, r *store.Record, key shim.Key, x *container.ExecCreateRequest) (*shim.ExecRequest, error) {
	root, err := b.rootOf(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	name := x.User
	if name == "" {
		name = r.Config.User
	}
	user, err := b.user(ctx, r, root, name)
	if err != nil {
		return nil, err
	}
	cfg, host := *r.Config, *r.HostConfig
	cfg.Tty = x.Tty
	cfg.Env = spec.MergeEnv(cfg.Env, x.Env)
	if x.WorkingDir != "" {
		cfg.WorkingDir = x.WorkingDir
	}
	if x.Privileged {
		host.Privileged = true
	}
	sp, err := spec.Build(spec.Input{
		ID: r.ID, Config: &cfg, Host: &host, Path: x.Cmd[0], Args: x.Cmd[1:],
		User: user, Held: b.held, NoNewPrivileges: b.cfg.NoNewPrivileges, BlockDevice: hostdev.Block,
		LinkEnv: links.Env(b.index, r),
	})
	if err != nil {
		return nil, err
	}
	req := &shim.ExecRequest{Key: key, Process: sp.Process, OpenStdin: x.AttachStdin}
	// The filter is the container's, whatever the exec may do.
	plain := &specs.Spec{Process: sp.Process, Linux: &specs.Linux{}}
	if req.Seccomp, req.SeccompFlags, err = b.filter(r.HostConfig, plain, false); err != nil {
		return nil, err
	}
	return req, nil
}

// Forget drops what is kept of a container that is removed.
func (b *Builder) Forget(cid string) { b.users.Forget(cid) }

// root is what a container's root file system is made of.
type root struct {
	lower []string
	layer storage.Layer
}

// rootfs is how the root is put together: mounted as an overlay of the writable layer above
// the image's, or complete in the layer, as the storage driver has it. What a container that
// removes itself writes need not outlive the machine.
func (r root) rootfs(h *container.HostConfig) oci.Rootfs {
	if r.layer.Path != "" {
		return oci.Rootfs{Path: r.layer.Path, Readonly: h.ReadonlyRootfs}
	}
	o := &oci.Overlay{Lower: r.lower, Upper: r.layer.Upper, Work: r.layer.Work, Volatile: h.AutoRemove}
	return oci.Rootfs{Overlay: o, Readonly: h.ReadonlyRootfs}
}

func (b *Builder) rootOf(ctx context.Context, cid string) (root, error) {
	lease, err := b.images.LeaseOf(ctx, cid)
	if err != nil {
		return root{}, err
	}
	layer, err := b.layers.Get(cid)
	return root{lease.Lower, layer}, err
}

// user finds who a process of the container runs as.
func (b *Builder) user(ctx context.Context, r *store.Record, root root, name string) (spec.User, error) {
	files, err := b.users.Read(ctx, r.ID, &users{b, r.ID, root})
	if err != nil {
		return spec.User{}, fmt.Errorf("reading the container's users: %w", err)
	}
	u, err := files.Resolve(name, r.HostConfig.GroupAdd)
	return spec.User{UID: u.UID, GID: u.GID, Groups: u.Groups, Home: u.Home}, err
}

// users is a container's root as package userdb wants it.
type users struct {
	b    *Builder
	id   string
	root root
}

// Image implements userdb.Root.
func (u *users) Image() string {
	if u.root.layer.Path != "" {
		return ""
	}
	return strings.Join(u.root.lower, ":")
}

// Changes implements userdb.Root.
func (u *users) Changes() string { return u.root.layer.Dirs(nil)[0] }

// OpenImage implements userdb.Root.
func (u *users) OpenImage(context.Context) (*os.File, error) { return rootview.Merge(u.root.lower) }

// Open implements userdb.Root.
func (u *users) Open(ctx context.Context) (*os.File, error) {
	c, err := u.b.index.Get(u.id)
	if err != nil {
		return nil, err
	}
	return u.b.views.Open(ctx, c)
}

// heldCapabilities reads the daemon's own capabilities by names the spec knows.
func heldCapabilities() ([]string, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		hex, ok := strings.CutPrefix(sc.Text(), "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("reading /proc/self/status: %w", err)
		}
		var held []string
		for i, c := range spec.KnownCaps() {
			if bits&(1<<i) != 0 {
				held = append(held, c)
			}
		}
		return held, nil
	}
	return nil, fmt.Errorf("reading /proc/self/status: no capabilities: %w", sc.Err())
}
