package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

var bg = context.Background()

func wantErr(t *testing.T, err, class error, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, class) || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v, want class %v with %q", err, class, text)
	}
}

// pausedAndResumed: what web, which runs, refuses before it is paused and while it is.
func pausedAndResumed(t *testing.T, r *rig) {
	t.Helper()
	wantErr(t, r.Unpause(bg, "web"), errdefs.ErrConflict, "is not paused")
	r.must(r.Pause(bg, "web"))
	wantErr(t, r.Pause(bg, "web"), errdefs.ErrConflict, "is already paused")
	if st := r.state("web"); st.Status != "paused" || !st.Running || !st.Paused {
		t.Errorf("%+v", st)
	}
	_, err := r.ExecCreate(bg, "web", container.ExecCreateRequest{Cmd: []string{"true"}})
	wantErr(t, err, errdefs.ErrConflict, "is paused, unpause the container before exec")
	r.must(r.Unpause(bg, "web"))
}

func TestLife(t *testing.T) {
	r := newRig(t)
	past, sub := r.bus.Subscribe(time.Time{})
	defer sub.Close()
	if len(past) != 0 {
		t.Fatal("old events")
	}
	id := r.create("web", &container.HostConfig{}, "sleep", "1")
	if st := r.state("web"); st.Status != "created" {
		t.Fatalf("%+v", st)
	}
	wait, err := r.Wait(bg, "web", container.WaitConditionNextExit)
	r.must(err)
	r.must(r.Start(bg, id[:12]))
	if err := r.Start(bg, "web"); !errdefs.IsNotModified(err) {
		t.Errorf("second start: %v", err)
	}
	if st := r.state("/web"); !st.Running || st.Pid != os.Getpid() {
		t.Fatalf("%+v", st)
	}
	wantErr(t, r.Remove(bg, "web", RemoveOptions{}), errdefs.ErrConflict, `cannot remove container "/web": container is running: stop the container before removing or force remove`)
	pausedAndResumed(t, r)
	wantErr(t, r.Rename(bg, "web", "-x"), errdefs.ErrInvalidArgument, "Error when allocating new name: Invalid container name (/-x), only")
	r.must(r.Rename(bg, "web", "api"))
	if i, err := r.Inspect(bg, "api", true); err != nil || *i.SizeRw != 42 || *i.SizeRootFs != 1042 {
		t.Errorf("%v %v: %v", i.SizeRw, i.SizeRootFs, err)
	}
	r.must(r.Resize(bg, "api", 10, 10)) // it has no terminal: nothing to do
	_, err = r.Inspect(bg, "web", false)
	wantErr(t, err, errdefs.ErrNotFound, "No such container: web")
	r.must(r.Stop(bg, "api", StopOptions{}))
	if w := <-wait; w.StatusCode != 143 || w.Error != nil {
		t.Errorf("waited: %+v", w)
	}
	if err := r.Stop(bg, "api", StopOptions{}); !errdefs.IsNotModified(err) {
		t.Errorf("second stop: %v", err)
	}
	wantErr(t, r.Kill(bg, "api", ""), errdefs.ErrConflict, "cannot kill container: api: container "+id+" is not running")
	if st := r.state("api"); st.Status != "exited" || st.ExitCode != 143 || st.Running {
		t.Errorf("%+v", st)
	}
	r.must(r.Restart(bg, "api", StopOptions{}))
	r.must(r.Restart(bg, "api", StopOptions{}))
	r.must(r.Remove(bg, "api", RemoveOptions{Force: true}))
	_, err = r.Inspect(bg, id, false)
	wantErr(t, err, errdefs.ErrNotFound, "No such container")
	if len(r.images.leases)+len(r.layers.have)+len(r.nets.have)+r.shim.len() != 0 {
		t.Errorf("left: %v %v %v %d", r.images.leases, r.layers.have, r.nets.have, r.shim.len())
	}
	var acts []string
	for len(acts) == 0 || acts[len(acts)-1] != "destroy" {
		acts = append(acts, string((<-sub.C()).Action))
	}
	want := []string{
		"create", "start", "pause", "unpause", "rename", "resize", "kill", "die", "stop", "start", "restart",
		"kill", "die", "stop", "start", "restart", "kill", "die", "destroy",
	}
	if !slices.Equal(acts, want) {
		t.Errorf("events %v\nwant   %v", acts, want)
	}
	entries, _ := os.ReadDir(r.dir + "/data/containers")
	runs, _ := os.ReadDir(r.dir + "/exec/containers")
	if len(entries)+len(runs) != 0 {
		t.Errorf("left: %v %v", entries, runs)
	}
}

func TestCreateRefusals(t *testing.T) {
	r := newRig(t)
	id := r.create("taken", nil)
	for _, c := range []struct {
		o     CreateOptions
		class error
		text  string
	}{
		{CreateOptions{Name: "taken"}, errdefs.ErrConflict, `Conflict. The container name "/taken" is already in use by container "` + id + `". You have to remove (or rename) that container to be able to reuse that name.`},
		{CreateOptions{Name: "?"}, errdefs.ErrInvalidArgument, "Invalid container name (?), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"},
		{CreateOptions{Config: &container.Config{Image: "nope"}}, errdefs.ErrNotFound, "No such image: nope"},
		{CreateOptions{Config: &container.Config{Image: "busybox", Entrypoint: []string{""}}}, errdefs.ErrInvalidArgument, "no command specified"},
		{CreateOptions{Config: &container.Config{Image: "busybox", WorkingDir: "x"}}, errdefs.ErrInvalidArgument, "the working directory 'x' is invalid, it needs to be an absolute path"},
		{CreateOptions{HostConfig: &container.HostConfig{Resources: container.Resources{Memory: 1 << 20}}}, errdefs.ErrInvalidArgument, "Minimum memory limit allowed is 6MB"},
		{CreateOptions{HostConfig: &container.HostConfig{Resources: container.Resources{NanoCPUs: 1e15}}}, errdefs.ErrInvalidArgument, "range of CPUs is from 0.01 to "},
		{CreateOptions{HostConfig: &container.HostConfig{Binds: []string{"a:b:c:d"}}}, errdefs.ErrInvalidArgument, "invalid volume specification: 'a:b:c:d'"},
		{CreateOptions{HostConfig: &container.HostConfig{Binds: []string{"/a:/b:foo"}}}, errdefs.ErrInvalidArgument, "invalid mode: foo"},
		{CreateOptions{HostConfig: &container.HostConfig{Binds: []string{"a b:/b"}}}, errdefs.ErrInvalidArgument, "includes invalid characters for a local volume name"},
		{CreateOptions{HostConfig: &container.HostConfig{Mounts: []mount.Mount{{Type: "bind", Source: "/nope/x", Target: "/x"}}}}, errdefs.ErrInvalidArgument, `invalid mount config for type "bind": bind source path does not exist: /nope/x`},
		{CreateOptions{HostConfig: &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "sometimes"}}}, errdefs.ErrInvalidArgument, "unknown policy 'sometimes'"},
		{CreateOptions{HostConfig: &container.HostConfig{Runtime: "kata"}}, errdefs.ErrInvalidArgument, "unknown or invalid runtime name: kata"},
		{CreateOptions{HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: "paper"}}}, errdefs.ErrInvalidArgument, `error looking up logging plugin paper: plugin "paper" not found`},
		{CreateOptions{HostConfig: &container.HostConfig{LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"x": "y"}}}}, errdefs.ErrInvalidArgument, "unknown log opt 'x' for json-file log driver"},
		{CreateOptions{HostConfig: &container.HostConfig{CapAdd: []string{"FLY"}}}, errdefs.ErrInvalidArgument, `invalid CapAdd: unknown capability: "CAP_FLY"`},
		{CreateOptions{HostConfig: &container.HostConfig{NetworkMode: "container:"}}, errdefs.ErrInvalidArgument, "invalid container format container:<name|id>"},
		{CreateOptions{HostConfig: &container.HostConfig{AutoRemove: true, RestartPolicy: container.RestartPolicy{Name: "always"}}}, errdefs.ErrInvalidArgument, "can't create 'AutoRemove' container with restart policy"},
		{CreateOptions{HostConfig: &container.HostConfig{Sysctls: map[string]string{"kernel.panic": "1"}}}, errdefs.ErrInvalidArgument, "sysctl 'kernel.panic' is not whitelisted"},
	} {
		if c.o.Config == nil {
			c.o.Config = &container.Config{Image: "busybox"}
		}
		if c.o.Name == "" {
			c.o.Name = "refused"
		}
		t.Run(c.text, func(t *testing.T) {
			_, err := r.Create(bg, c.o)
			wantErr(t, err, c.class, c.text)
			r.must(r.index.Reserve("refused", "somebody")) // the name is free again
			r.index.Release("refused", "somebody")
			// What is wrong without the image is told without it.
			if c.o.HostConfig != nil && !strings.Contains(c.text, "local volume name") {
				c.o.Config.Image = "nope"
				_, err := r.Create(bg, c.o)
				wantErr(t, err, c.class, c.text)
			}
		})
	}
	if len(r.layers.have) != 1 || len(r.images.leases) != 1 {
		t.Errorf("refused creates left something: %v %v", r.layers.have, r.images.leases)
	}
}

func TestFailedStart(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		cmd   string
		code  int
		class error
		text  string
	}{
		{"fail", 127, errdefs.ErrInvalidArgument, `failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: exec: "fail": executable file not found in $PATH`},
		{"fail-noexec", 126, errdefs.ErrInvalidArgument, "permission denied"},
		{"fail-other", 128, errdefs.ErrInternal, "the kernel said no"},
	} {
		t.Run(c.cmd, func(t *testing.T) {
			id := r.create("", nil, c.cmd)
			wantErr(t, r.Start(bg, id), c.class, c.text)
			if st := r.state(id); st.Status != "created" || st.ExitCode != c.code || !strings.Contains(st.Error, c.text) {
				t.Errorf("%+v", st)
			}
			wait, err := r.Wait(bg, id, "")
			r.must(err)
			if w := <-wait; w.StatusCode != int64(c.code) || w.Error == nil || !strings.Contains(w.Error.Message, c.text) {
				t.Errorf("%+v", w)
			}
			if i, err := r.Inspect(bg, id, false); err != nil || i.LogPath == "" || i.HostsPath == "" {
				t.Errorf("%q %q: %v", i.LogPath, i.HostsPath, err)
			}
		})
	}
	if i, err := r.Inspect(bg, r.create("", nil, "sh"), false); err != nil || i.LogPath != "" || i.HostsPath != "" {
		t.Errorf("never started: %q %q: %v", i.LogPath, i.HostsPath, err)
	}
	if len(r.nets.have) != 0 {
		t.Errorf("networks left: %v", r.nets.have)
	}
	r.nets.fail = errclass.Internal("driver failed")
	id := r.create("", &container.HostConfig{AutoRemove: true}, "sh")
	wantErr(t, r.Start(bg, id), errdefs.ErrInternal, "failed to set up container networking: driver failed")
	r.until("removal", func() bool { return r.index.ByID(id) == nil })
}

func TestAutoRemoveAndRestartPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id := r.create("", &container.HostConfig{AutoRemove: true}, "true")
		wait, err := r.Wait(bg, id, container.WaitConditionRemoved)
		r.must(err)
		r.must(r.Start(bg, id))
		if w := <-wait; w.StatusCode != 0 {
			t.Errorf("%+v", w)
		}
		if r.index.ByID(id) != nil {
			t.Error("still there")
		}
		id = r.create("", &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 2}}, "false")
		r.must(r.Start(bg, id))
		r.until("the policy gives up", func() bool { st := r.state(id); return st.Status == "exited" })
		if i, _ := r.Inspect(bg, id, false); i.RestartCount != 2 || i.State.ExitCode != 1 {
			t.Errorf("%d %+v", i.RestartCount, i.State)
		}
	})
}

func TestStopTimeout(t *testing.T) {
	r := newRig(t)
	id := r.create("", nil, "stubborn")
	r.must(r.Start(bg, id))
	zero := 0
	r.must(r.Stop(bg, id, StopOptions{Timeout: &zero}))
	if st := r.state(id); st.ExitCode != 137 {
		t.Errorf("%+v", st)
	}
	wantErr(t, r.Stop(bg, id, StopOptions{Signal: "SIGFOO"}), errdefs.ErrInvalidArgument, "invalid signal: SIGFOO")
}

// stop asks for what is so already while the container is being removed.
func TestStopDuringRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id := r.create("web", nil, "sleep")
		r.layers.hold = make(chan struct{})
		removed := make(chan error)
		go func() { removed <- r.Remove(bg, id, RemoveOptions{}) }()
		synctest.Wait()
		if err := r.Stop(bg, id, StopOptions{}); !errdefs.IsNotModified(err) {
			t.Errorf("%v", err)
		}
		wantErr(t, r.Start(bg, id), errdefs.ErrConflict, "container is marked for removal and cannot be started")
		close(r.layers.hold)
		r.must(<-removed)
	})
}

func TestWaitCancelled(t *testing.T) {
	r := newRig(t)
	id := r.create("", nil, "sleep")
	r.must(r.Start(bg, id))
	ctx, cancel := context.WithCancel(bg)
	wait, err := r.Wait(ctx, id, "")
	r.must(err)
	cancel()
	if w := <-wait; w.Error == nil {
		t.Errorf("%+v", w)
	}
	_, err = r.Wait(bg, id, "never")
	wantErr(t, err, errdefs.ErrInvalidArgument, "invalid condition")
}

func TestPrefixes(t *testing.T) {
	r := newRig(t)
	var ids []string
	for range 40 {
		ids = append(ids, r.create("", nil))
	}
	_, err := r.index.Get(ids[0][:0] + "zz")
	wantErr(t, err, errdefs.ErrNotFound, "No such container: zz")
	for _, id := range ids {
		if o, err := r.index.Get(id[:20]); err != nil || o.ID != id {
			t.Fatal(err)
		}
	}
	counts := map[byte]int{}
	for _, id := range ids {
		counts[id[0]]++
	}
	for c, n := range counts {
		_, err := r.index.Get(string(c))
		if n > 1 {
			wantErr(t, err, errdefs.ErrInvalidArgument, "multiple IDs found with provided prefix: "+string(c))
		} else if err != nil {
			t.Error(err)
		}
	}
}

func TestList(t *testing.T) {
	r := newRig(t)
	a := r.create("a1", &container.HostConfig{}, "sleep", "a b")
	r.create("b1", nil, "false")
	c := r.create("c1", nil, "sleep")
	r.must(r.Start(bg, a))
	r.must(r.Start(bg, "b1"))
	r.until("b1 ends", func() bool { return r.state("b1").Status == "exited" })
	names := func(o ListOptions) string {
		t.Helper()
		list, err := r.List(bg, o)
		r.must(err)
		var s []string
		for _, x := range list {
			s = append(s, x.Names[0][1:])
		}
		return strings.Join(s, " ")
	}
	for _, x := range []struct {
		o    ListOptions
		want string
	}{
		{ListOptions{}, "a1"},
		{ListOptions{All: true}, "c1 b1 a1"},
		{ListOptions{Limit: 1}, "c1"},
		{ListOptions{Filters: filter.Args{"status": {"exited"}}}, "b1"},
		{ListOptions{Filters: filter.Args{"exited": {"1"}}}, "b1"},
		{ListOptions{All: true, Filters: filter.Args{"name": {"^c"}}}, "c1"},
		{ListOptions{All: true, Filters: filter.Args{"id": {c[:10]}}}, "c1"},
		{ListOptions{Filters: filter.Args{"before": {"b1"}}}, "a1"},
		{ListOptions{Filters: filter.Args{"since": {"b1"}}}, "c1"},
		{ListOptions{All: true, Filters: filter.Args{"ancestor": {"busybox"}}}, "c1 b1 a1"},
		{ListOptions{All: true, Filters: filter.Args{"ancestor": {"other"}}}, ""},
		{ListOptions{All: true, Filters: filter.Args{"network": {"net-bridge"}}}, "a1"},
	} {
		t.Run(fmt.Sprintf("%+v", x.o), func(t *testing.T) {
			if got := names(x.o); got != x.want {
				t.Errorf("%q, want %q", got, x.want)
			}
		})
	}
	_, err := r.List(bg, ListOptions{Filters: filter.Args{"color": {"red"}}})
	wantErr(t, err, errdefs.ErrInvalidArgument, "invalid filter 'color'")
	list, _ := r.List(bg, ListOptions{})
	if l := list[0]; !strings.HasPrefix(l.Status, "Up ") || l.Command != "sleep 'a b'" || l.State != "running" {
		t.Errorf("%+v", l)
	}
	rep, err := r.Prune(bg, nil)
	r.must(err)
	if len(rep.ContainersDeleted) != 2 || rep.SpaceReclaimed != 84 {
		t.Errorf("%+v", rep)
	}
}

// pipe is a client's connection as the server hands it over.
func pipe(t *testing.T) (stream.Hijack, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	srv, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return func(bool) (*stream.Conn, error) { return &stream.Conn{Conn: srv}, nil }, client
}

func TestAttachBeforeStart(t *testing.T) {
	r := newRig(t)
	id := r.create("", nil, "sleep")
	hijack, _ := pipe(t)
	r.must(r.Attach(bg, id, AttachOptions{Stream: true, Stdout: true, DetachKeys: "ctrl-a,x"}, hijack))
	r.must(r.Start(bg, id))
	p := r.shim.procs[r.index.ByID(id).Key(1)]
	if len(p.req.Attach) != 1 || p.req.Attach[0].DetachKeys != nil || !p.req.Attach[0].Mux {
		t.Errorf("%+v", p.req.Attach)
	}
	// The connection of a client whose container cannot start is closed.
	id = r.create("", nil, "fail")
	hijack, client := pipe(t)
	r.must(r.Attach(bg, id, AttachOptions{Stream: true, Stdout: true}, hijack))
	if err := r.Start(bg, id); err == nil {
		t.Fatal("started")
	}
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
	err := r.Attach(bg, id, AttachOptions{DetachKeys: "ctrl-"}, nil)
	wantErr(t, err, errdefs.ErrInvalidArgument, "Invalid detach keys")
}

// A client starts the container when it has read that it is attached: it may do so before
// the daemon has gone on.
func TestStartWaitsForWhoIsBeingAttached(t *testing.T) {
	hijack, _ := pipe(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id := r.create("", nil, "sleep")
		started := make(chan error)
		r.must(r.Attach(bg, id, AttachOptions{Stream: true, Stdout: true}, func(raw bool) (*stream.Conn, error) {
			go func() { started <- r.Start(bg, id) }()
			synctest.Wait() // the start has gone as far as it can
			if p := r.index.ByID(id).View().Phase; p != fsm.Starting || r.shim.starts != 0 {
				t.Errorf("%v after %d starts", p, r.shim.starts)
			}
			return hijack(raw)
		}))
		r.must(<-started)
		if p := r.shim.procs[r.index.ByID(id).Key(1)]; len(p.req.Attach) != 1 {
			t.Errorf("%d clients came with the start", len(p.req.Attach))
		}
	})
}

// Who attaches as soon as the start is answered is connected to the process, not kept
// for the next start.
func TestAttachAtOnceAfterStart(t *testing.T) {
	r := newRig(t)
	for range 100 {
		id := r.create("", nil, "sleep")
		r.must(r.Start(bg, id))
		hijack, _ := pipe(t)
		r.must(r.Attach(bg, id, AttachOptions{Stream: true, Stdout: true}, hijack))
		if key := r.index.ByID(id).Key(1); r.shim.attached != key {
			t.Fatalf("after the start clients are connected to %v", r.shim.attached)
		}
	}
}

// A shim that dies while it lets go of a container leaves its cgroup: the next one is asked.
func TestForgetOutlivesTheShim(t *testing.T) {
	r := newRig(t)
	id := r.create("", nil, "sleep")
	r.must(r.Start(bg, id))
	r.shim.mu.Lock()
	r.shim.dying = 1
	r.shim.mu.Unlock()
	r.must(r.Remove(bg, id, RemoveOptions{Force: true}))
	r.shim.mu.Lock()
	defer r.shim.mu.Unlock()
	if len(r.shim.procs) != 0 {
		t.Errorf("the shim still holds %v", r.shim.procs)
	}
}

func TestJoinNetwork(t *testing.T) {
	r := newRig(t)
	a := r.create("a1", nil, "sleep")
	b := r.create("b1", &container.HostConfig{NetworkMode: "container:a1"}, "sleep")
	if i, _ := r.Inspect(bg, b, false); i.HostConfig.NetworkMode != container.NetworkMode("container:"+a) || i.Config.Hostname != a[:12] {
		t.Errorf("%+v", i.HostConfig.NetworkMode)
	}
	wantErr(t, r.Start(bg, b), errdefs.ErrConflict, "cannot join network of a non running container: "+a)
	r.must(r.Start(bg, a))
	r.must(r.Start(bg, b))
	c := r.create("c1", &container.HostConfig{NetworkMode: "container:gone"}, "sleep")
	wantErr(t, r.Start(bg, c), errdefs.ErrInternal, "joining network namespace of container: No such container: gone")
}

func TestExec(t *testing.T) {
	r := newRig(t)
	id := r.create("", nil, "sleep")
	_, err := r.ExecCreate(bg, id, container.ExecCreateRequest{Cmd: []string{"true"}})
	wantErr(t, err, errdefs.ErrConflict, "container "+id+" is not running")
	r.must(r.Start(bg, id))
	_, err = r.ExecCreate(bg, id, container.ExecCreateRequest{})
	wantErr(t, err, errdefs.ErrInvalidArgument, "No exec command specified")
	x, err := r.ExecCreate(bg, id, container.ExecCreateRequest{Cmd: []string{"false"}, Env: []string{"A=1"}, WorkingDir: "/tmp", User: "5"})
	r.must(err)
	if i, _ := r.ExecInspect(bg, x); i.Running || i.ExitCode != nil || i.ContainerID != id {
		t.Errorf("%+v", i)
	}
	r.must(r.ExecStart(bg, x, container.ExecStartRequest{Detach: true}, nil))
	r.until("exec ends", func() bool { i, _ := r.ExecInspect(bg, x); return i.ExitCode != nil && *i.ExitCode == 1 && !i.Running })
	wantErr(t, r.ExecStart(bg, x, container.ExecStartRequest{Detach: true}, nil), errdefs.ErrConflict, "has already run")
	long, err := r.ExecCreate(bg, id, container.ExecCreateRequest{Cmd: []string{"sleep"}, Env: []string{"A=1"}, WorkingDir: "/tmp", User: "5"})
	r.must(err)
	hijack, _ := pipe(t)
	r.must(r.ExecStart(bg, long, container.ExecStartRequest{}, hijack))
	for k, p := range r.shim.procs {
		if k.Exec == long {
			pr := p.execReq.Process
			if pr.Cwd != "/tmp" || pr.User.UID != 5 || !slices.Contains(pr.Env, "A=1") || !slices.Contains(pr.Env, "IMG=1") || len(p.execReq.Attach) != 1 {
				t.Errorf("%+v", pr)
			}
		}
	}
	if i, _ := r.Inspect(bg, id, false); !slices.Equal(i.ExecIDs, []string{long}) {
		t.Errorf("execs %v", i.ExecIDs)
	}
	// What does not start is told through the connection.
	x, err = r.ExecCreate(bg, id, container.ExecCreateRequest{Cmd: []string{"fail"}, Tty: true})
	r.must(err)
	hijack, client := pipe(t)
	r.must(r.ExecStart(bg, x, container.ExecStartRequest{}, hijack))
	buf := make([]byte, 300)
	n, _ := client.Read(buf)
	if got := string(buf[:n]); got != "OCI runtime exec failed: exec failed: unable to start container process: exec: \"fail\": executable file not found in $PATH\r\n" {
		t.Errorf("told %q", got)
	}
	if i, _ := r.ExecInspect(bg, x); i.ExitCode == nil || *i.ExitCode != 127 {
		t.Errorf("%+v", i)
	}
	r.must(r.Kill(bg, id, ""))
	if i, _ := r.ExecInspect(bg, long); i.Running {
		t.Errorf("runs on: %+v", i)
	}
	r.must(r.Remove(bg, id, RemoveOptions{}))
	_, err = r.ExecInspect(bg, x)
	wantErr(t, err, errdefs.ErrNotFound, "No such exec instance: "+x)
}

func TestExecEvents(t *testing.T) {
	r := newRig(t)
	begin := time.Now()
	r.create("web", nil, "sleep")
	r.must(r.Start(bg, "web"))
	for _, cmd := range [][]string{{"true"}, {"sleep", "1", "2"}} {
		_, err := r.ExecCreate(bg, "web", container.ExecCreateRequest{Cmd: cmd})
		r.must(err)
	}
	names := map[string]string{"exec_create: true ": "x", "exec_create: sleep 1 2": "x"}
	if got := r.healths(names, begin); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runs := r.create("runs", nil, "sleep")
		dies := r.create("dies", nil, "sleep")
		auto := r.create("auto", &container.HostConfig{AutoRemove: true}, "sleep")
		always := r.create("always", &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"}}, "sleep")
		lost := r.create("lost", nil, "sleep")
		r.create("fresh", nil, "sleep")
		over := r.create("over", nil, "false")
		for _, id := range []string{runs, dies, auto, always, lost, over} {
			r.must(r.Start(bg, id))
		}
		r.until("over ends", func() bool { return r.state("over").Status == "exited" })
		x1, err := r.ExecCreate(bg, runs, container.ExecCreateRequest{Cmd: []string{"sleep"}})
		r.must(err)
		r.must(r.ExecStart(bg, x1, container.ExecStartRequest{Detach: true}, nil))
		x2, err := r.ExecCreate(bg, runs, container.ExecCreateRequest{Cmd: []string{"sleep"}})
		r.must(err)
		r.must(r.ExecStart(bg, x2, container.ExecStartRequest{Detach: true}, nil))
		r.stop()
		r.shim.exit(shim.Key{Container: runs, Exec: x2, Run: 1}, 5, 0)
		// While no daemon is there: two end, one is lost with the shim but lives on.
		for _, id := range []string{dies, auto, always} {
			r.shim.exit(r.index.ByID(id).Key(1), 7, 0)
		}
		for len(r.shim.events) > 0 {
			<-r.shim.events
		}
		r.must(r.shim.Forget(bg, r.index.ByID(lost).Key(1)))
		half := strings.Repeat("ab", 32)
		r.must(os.Mkdir(r.dir+"/data/containers/"+half, 0o700))
		r.layers.have[half] = true
		gone := strings.Repeat("cd", 32)
		r.must(os.Mkdir(r.dir+"/data/containers/.removing-"+gone, 0o700))
		r.layers.have[gone] = true
		r.start()
		if st := r.state("runs"); !st.Running || st.Pid == 0 {
			t.Errorf("runs: %+v", st)
		}
		if st := r.state("dies"); st.Status != "exited" || st.ExitCode != 7 {
			t.Errorf("right after the start: %+v", st)
		}
		r.until("auto is removed", func() bool { return r.index.ByID(auto) == nil })
		r.until("always runs again", func() bool { return r.state("always").Running && r.index.ByID(always).View().Run == 2 })
		if st := r.state("lost"); !st.Running || !strings.Contains(st.Error, "lost") {
			t.Errorf("lost: %+v", st)
		}
		if st := r.state("fresh"); st.Status != "created" {
			t.Errorf("fresh: %+v", st)
		}
		if st := r.state("over"); st.Status != "exited" || st.ExitCode != 1 || st.FinishedAt == "" {
			t.Errorf("over: %+v", st)
		}
		if r.layers.have[half] || r.layers.have[gone] {
			t.Error("half-done containers left")
		}
		if i, err := r.ExecInspect(bg, x1); err != nil || !i.Running {
			t.Errorf("exec: %+v %v", i, err)
		}
		if i, err := r.ExecInspect(bg, x2); err != nil || i.Running || *i.ExitCode != 5 {
			t.Errorf("ended exec: %+v %v", i, err)
		}
		r.must(r.Stop(bg, "runs", StopOptions{}))
		r.must(r.Start(bg, "fresh"))
		r.must(r.Remove(bg, "lost", RemoveOptions{Force: true}))
	})
}

// A teardown that was cut off after the shim was told to forget the run: the exit is on record.
func TestRestoreAfterATeardown(t *testing.T) {
	r := newRig(t)
	id := r.create("web", nil, "sleep")
	r.must(r.Start(bg, id))
	r.must(r.Stop(bg, id, StopOptions{}))
	r.stop()
	file, err := r.files.OpenRun(id)
	r.must(err)
	r.must(file.Save(&store.Run{Schema: store.Schema, Number: 1, Phase: "running", Pid: 1 << 30, StartTicks: 1}))
	r.must(file.Close())
	r.start()
	if st := r.state(id); st.Status != "exited" || st.ExitCode != 143 || st.Error != "" {
		t.Errorf("%+v", st)
	}
	if _, err := r.files.Run(id); !errdefs.IsNotFound(err) {
		t.Errorf("the run's record is still there: %v", err)
	}
}

// A start that was given up while the shim carried it out after all: its end is not kept.
func TestGivenUpStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id := r.create("late", nil, "sleep")
		r.shim.late = context.DeadlineExceeded
		if err := r.Start(bg, id); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
			t.Fatal(err)
		}
		r.shim.exit(r.index.ByID(id).Key(1), 137, 9)
		r.until("the shim may forget", func() bool { l, _ := r.shim.List(bg); return len(l) == 0 })
		r.shim.late = nil
		r.must(r.Start(bg, id))
		r.must(r.Remove(bg, id, RemoveOptions{Force: true}))
	})
}

func TestDead(t *testing.T) {
	r := newRig(t)
	id := r.create("x1", nil, "sleep")
	r.layers.fail = errors.New("busy")
	if err := r.Remove(bg, id, RemoveOptions{}); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("%v", err)
	}
	if st := r.state(id); st.Status != "dead" || !st.Dead {
		t.Errorf("%+v", st)
	}
	wantErr(t, r.Start(bg, id), errdefs.ErrConflict, "marked for removal")
	r.layers.fail = nil
	r.must(r.Remove(bg, id, RemoveOptions{}))
}

func BenchmarkCreate(b *testing.B) {
	r := newRig(b)
	for b.Loop() {
		r.create("", nil, "sleep")
	}
}

func BenchmarkList1000(b *testing.B) {
	r := newRig(b)
	for range 1000 {
		r.create("", nil, "sleep")
	}
	for b.Loop() {
		if l, err := r.List(bg, ListOptions{All: true}); err != nil || len(l) != 1000 {
			b.Fatal(err)
		}
	}
}

// BenchmarkRun is create, start, wait and remove over fakes: what this package costs.
func BenchmarkRun(b *testing.B) {
	r := newRig(b)
	for b.Loop() {
		id := r.create("", &container.HostConfig{AutoRemove: true}, "true")
		wait, err := r.Wait(bg, id, container.WaitConditionRemoved)
		r.must(err)
		r.must(r.Start(bg, id))
		<-wait
	}
}

// BenchmarkExec is one exec over fakes.
func BenchmarkExec(b *testing.B) {
	r := newRig(b)
	id := r.create("", nil, "sleep")
	r.must(r.Start(bg, id))
	for b.Loop() {
		x, err := r.ExecCreate(bg, id, container.ExecCreateRequest{Cmd: []string{"true"}})
		r.must(err)
		r.must(r.ExecStart(bg, x, container.ExecStartRequest{Detach: true}, nil))
	}
}

// BenchmarkIdle reports the memory of one container that exists and rests.
func BenchmarkIdle(b *testing.B) {
	const n = 1000
	for b.Loop() {
		r := newRig(b)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range n {
			r.create("", nil, "sleep")
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		used := after.HeapInuse + after.StackInuse - before.HeapInuse - before.StackInuse
		b.ReportMetric(float64(used)/n, "B/container")
	}
}
