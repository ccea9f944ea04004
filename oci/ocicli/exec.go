package ocicli

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/plan/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func precondition(format string, a ...any) error {
	return errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf(format, a...))
}

type execFlags struct {
	console, cwd, user, process, pidFile string
	label, apparmor                      string
	env, gids, caps, cgroups             []string
	tty, detach, noNewPrivs, paused      bool
	preserve                             int
}

func setupExec(a *app, f *flags) func([]string) error {
	x := new(execFlags)
	f.stopAtArg = true // what follows the id is the program's
	f.str(&x.console, "console-socket", "SOCKET", "a unix socket that gets the master side of the terminal")
	f.str(&x.cwd, "cwd", "DIR", "working directory")
	f.list(&x.env, "env,e", "KEY=VALUE", "add to the environment")
	f.boolean(&x.tty, "tty,t", "allocate a terminal")
	f.str(&x.user, "user,u", "UID[:GID]", "whom to run as")
	f.list(&x.gids, "additional-gids,g", "GID", "additional group")
	f.str(&x.process, "process,p", "FILE", "the process as JSON, as in a specification")
	f.boolean(&x.detach, "detach,d", "return when the process runs")
	f.str(&x.pidFile, "pid-file", "FILE", "where to write the process id")
	f.str(&x.label, "process-label", "LABEL", "SELinux label")
	f.str(&x.apparmor, "apparmor", "PROFILE", "AppArmor profile")
	f.boolean(&x.noNewPrivs, "no-new-privs", "set no_new_privs")
	f.list(&x.caps, "cap,c", "CAP", "add a capability")
	f.count(&x.preserve, "preserve-fds", "N", "pass N more descriptors, from 3 on")
	f.list(&x.cgroups, "cgroup", "[CTRL:]PATH", "join an existing cgroup below the container's")
	f.boolean(&x.paused, "ignore-paused", "also in a paused container")
	f.ignored("no-subreaper", "", "accepted: orphans are not adopted")
	return func(args []string) error {
		return failedExec(a.exec(args[0], args[1:], x))
	}
}

// failedExec words an error as runc does, and has the program end with its status.
func failedExec(err error) error {
	var code exitError
	if err == nil || errors.As(err, &code) {
		return err
	}
	const status = 255
	return failure{fmt.Errorf("exec failed: %w", err), status}
}

func (a *app) exec(id string, args []string, x *execFlags) error {
	if x.process == "" && len(args) == 0 {
		return usageError("process args cannot be empty")
	}
	// Before anything is opened here.
	l, err := newLaunch(x.preserve, "", false, false)
	if err != nil {
		return err
	}
	c, err := a.store.open(id)
	if err != nil {
		return err
	}
	defer c.close()
	switch st := c.status(); {
	case st == specs.StateStopped:
		return precondition("cannot exec in a stopped container")
	case st == statusPaused && !x.paused:
		return precondition("cannot exec in a paused container (use --ignore-paused to override)")
	case st == specs.StateCreating:
		return precondition("cannot exec in a container that is being created")
	}
	spec, err := c.spec()
	if err != nil {
		return err
	}
	p, err := x.describe(spec.Process, args)
	if err != nil {
		return err
	}
	p.Env = append(p.Env, l.env...)
	preserved := l.preserve
	if l, err = checkLaunch(x.console, p.Terminal, x.detach); err != nil {
		return err
	}
	o := &oci.ExecOpts{
		ContainerID: id, InitPid: c.Pid, Process: p, Stdio: stdio(), Preserve: preserved, IgnorePaused: x.paused,
		Spec: spec,
	}
	if o.Cgroup, err = subCgroup(c.Cgroup, x.cgroups); err != nil {
		return err
	}
	if l := spec.Linux; l != nil {
		o.Personality, o.MemoryPolicy = l.Personality, l.MemoryPolicy
		if sc := l.Seccomp; sc != nil {
			if o.Seccomp, o.SeccompFlags, err = seccomp.Compile(sc); err != nil {
				return err
			}
			o.Notify = &oci.Notify{Path: sc.ListenerPath, Metadata: sc.ListenerMetadata, Bundle: c.Bundle, Annotations: c.Annots}
		}
	}
	if o.Init, err = openProcess(c.Pid, c.StartTime); err != nil {
		return err
	}
	defer o.Init.Close()
	if !x.detach {
		l.fg = newForeground(p.Terminal, false)
		o.ConsoleSize = l.fg.size()
	}
	return a.execIn(o, l, x)
}

// execIn starts the process and, in the foreground, waits for it.
func (a *app) execIn(o *oci.ExecOpts, l *launch, x *execFlags) error {
	pr, err := oci.Exec(a.ctx, o)
	if err != nil {
		l.stop()
		return fmt.Errorf("unable to start container process: %w", err)
	}
	for _, w := range pr.Warnings {
		a.log.warn("%s", w)
	}
	if err = l.terminalReady(pr); err == nil {
		err = writePidFile(x.pidFile, pr.Pid)
	}
	if err != nil {
		_ = signalProcess(pr.PidFD, 9)
		_, _ = reap(pr.Pid)
		l.stop()
		return err
	}
	if x.detach {
		return nil
	}
	code, err := l.fg.wait(pr)
	if err != nil {
		return err
	}
	return exitError(code)
}

// checkLaunch is newLaunch without descriptors.
func checkLaunch(console string, terminal, detach bool) (*launch, error) {
	l := &launch{console: console, terminal: terminal, detach: detach}
	return l, l.check()
}

// describe makes the process: from the file, or from the container's own and the options.
func (x *execFlags) describe(base *specs.Process, args []string) (*specs.Process, error) {
	if x.process != "" {
		p := new(specs.Process)
		if err := readJSON(x.process, p); err != nil {
			return nil, err
		}
		return p, nil
	}
	if base == nil {
		return nil, errclass.Invalid("the container's specification has no process")
	}
	p := *base
	p.Args, p.Terminal = args, x.tty
	p.ConsoleSize = nil
	p.Env = append(append([]string{}, base.Env...), x.env...)
	if x.cwd != "" {
		p.Cwd = x.cwd
	}
	if x.apparmor != "" {
		p.ApparmorProfile = x.apparmor
	}
	if x.label != "" {
		p.SelinuxLabel = x.label
	}
	p.NoNewPrivileges = p.NoNewPrivileges || x.noNewPrivs
	if len(x.caps) != 0 {
		var caps specs.LinuxCapabilities
		if base.Capabilities != nil {
			caps = *base.Capabilities
		}
		add := func(l []string) []string { return append(append([]string{}, l...), x.caps...) }
		caps.Bounding, caps.Effective, caps.Permitted = add(caps.Bounding), add(caps.Effective), add(caps.Permitted)
		p.Capabilities = &caps
	}
	return &p, x.identity(&p)
}

func (x *execFlags) identity(p *specs.Process) error {
	if x.user != "" {
		uid, gid, hasGID := strings.Cut(x.user, ":")
		var err error
		if p.User.UID, err = parseID(uid); err != nil {
			return err
		}
		if hasGID {
			if p.User.GID, err = parseID(gid); err != nil {
				return err
			}
		}
	}
	groups := append([]uint32{}, p.User.AdditionalGids...)
	for _, g := range x.gids {
		id, err := parseID(g)
		if err != nil {
			return err
		}
		groups = append(groups, id)
	}
	p.User.AdditionalGids = groups
	return nil
}

// parseID parses a user or group id; names are the caller's to resolve.
func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n == math.MaxUint32 {
		return 0, usageError("%q is not a user or group id", s)
	}
	return uint32(n), nil
}

// subCgroup is a cgroup below the container's. Each entry is a path for all
// hierarchies, or CONTROLLER[,CONTROLLER]:PATH for some.
func subCgroup(ref oci.CgroupRef, in []string) (oci.CgroupRef, error) {
	if len(in) == 0 {
		return ref, nil
	}
	out := oci.CgroupRef{Paths: make(map[string]string, len(ref.Paths)), Systemd: ref.Systemd}
	for k, v := range ref.Paths {
		out.Paths[k] = v
	}
	for _, e := range in {
		names, sub, some := strings.Cut(e, ":")
		if !some {
			sub = names
		}
		for _, part := range strings.Split(sub, "/") {
			if part == ".." {
				return out, usageError("bad cgroup path %q: it leads out of the container's cgroup", sub)
			}
		}
		if !some {
			for k, v := range ref.Paths {
				out.Paths[k] = path.Join(v, sub)
			}
			continue
		}
		for _, n := range strings.Split(names, ",") {
			v, ok := ref.Paths[n]
			if !ok {
				return out, usageError("unknown controller %q in --cgroup %s", n, e)
			}
			out.Paths[n] = path.Join(v, sub)
		}
	}
	return out, nil
}
