package container

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/container"
)

// deaths are the die events so far: "true" for those that announce a restart, else "-".
func (r *rig) deaths() string {
	past, sub := r.bus.Subscribe(time.Unix(0, 1))
	sub.Close()
	var out []string
	for _, ev := range past {
		if ev.Action != "die" {
			continue
		}
		said, ok := ev.Actor.Attributes["restarting"]
		if !ok {
			said = "-"
		}
		out = append(out, said)
	}
	return strings.Join(out, " ")
}

func TestDieAnnouncesRestart(t *testing.T) {
	policy := func(name container.RestartPolicyMode, most int) *container.HostConfig {
		return &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: name, MaximumRetryCount: most}}
	}
	for name, c := range map[string]struct {
		host *container.HostConfig
		cmd  string
		do   func(r *rig) error
		want string
	}{
		"no policy":               {cmd: "false", want: "-"},
		"on-failure gives up":     {host: policy("on-failure", 2), cmd: "false", want: "true true -"},
		"on-failure, no failure":  {host: policy("on-failure", 2), cmd: "true", want: "-"},
		"restart":                 {cmd: "sleep", do: func(r *rig) error { return r.Restart(bg, "web", StopOptions{}) }, want: "true"},
		"stop against always":     {host: policy("always", 0), cmd: "sleep", do: func(r *rig) error { return r.Stop(bg, "web", StopOptions{}) }, want: "-"},
		"kill against always":     {host: policy("always", 0), cmd: "sleep", do: func(r *rig) error { return r.Kill(bg, "web", "") }, want: "-"},
		"other signal, always":    {host: policy("always", 0), cmd: "sleep", do: func(r *rig) error { return r.Kill(bg, "web", "USR1") }, want: "-"},
		"removal against always":  {host: policy("always", 0), cmd: "sleep", do: func(r *rig) error { return r.Remove(bg, "web", RemoveOptions{Force: true}) }, want: "-"},
		"unless-stopped, by code": {host: policy("unless-stopped", 0), cmd: "true", do: func(r *rig) error { return r.Stop(bg, "web", StopOptions{}) }, want: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				r.create("web", c.host, c.cmd)
				r.must(r.Start(bg, "web"))
				synctest.Wait()
				if c.do != nil {
					r.must(c.do(r))
				} else {
					time.Sleep(10 * time.Second)
				}
				synctest.Wait()
				if got := r.deaths(); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestListByAnnotation(t *testing.T) {
	r := newRig(t)
	r.create("a1", &container.HostConfig{Annotations: map[string]string{"k": "v"}})
	r.create("b1", &container.HostConfig{Annotations: map[string]string{"k": "w"}})
	r.create("c1", nil)
	for want, values := range map[string][]string{"a1 b1": {"k"}, "a1": {"k=v"}, "": {"k=v", "k=w"}, "b1": {"k", "k=w"}} {
		t.Run(want, func(t *testing.T) {
			list, err := r.List(bg, ListOptions{All: true, Filters: filter.Args{"annotation": values}})
			r.must(err)
			var names []string
			for _, x := range list {
				names = append([]string{x.Names[0][1:]}, names...)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("%q: %q, want %q", values, got, want)
			}
		})
	}
}

func TestUmask(t *testing.T) {
	r := newRig(t)
	umask := uint32(0o27)
	id := r.create("web", &container.HostConfig{Umask: &umask}, "sleep")
	r.must(r.Start(bg, id))
	x, err := r.ExecCreate(bg, id, container.ExecCreateRequest{Cmd: []string{"sleep"}})
	r.must(err)
	r.must(r.ExecStart(bg, x, container.ExecStartRequest{Detach: true}, nil))
	n := 0
	for key, p := range r.shim.procs {
		var got *uint32
		if p.req != nil {
			got = p.req.Spec.Process.User.Umask
		} else {
			got = p.execReq.Process.User.Umask
		}
		if n++; got == nil || *got != umask {
			t.Errorf("%v: umask %v", key, got)
		}
	}
	if n != 2 {
		t.Errorf("%d processes", n)
	}
	umask = 0o1000
	_, err = r.Create(bg, CreateOptions{Config: &container.Config{Image: "busybox"}, HostConfig: &container.HostConfig{Umask: &umask}})
	if err == nil || !strings.Contains(err.Error(), "invalid umask 01000") {
		t.Errorf("%v", err)
	}
}

// A daemon that ends does not wait for what its shim is slow with, and leaves what a crash
// would leave: the next daemon goes on with it.
func TestCloseCutsOffAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		id := r.create("web", nil, "sleep")
		r.shim.slow = true
		started := make(chan error)
		go func() { started <- r.Start(bg, id) }()
		synctest.Wait()
		begin := time.Now()
		r.must(r.Close(context.Background()))
		if err := <-started; err == nil || !strings.Contains(err.Error(), "the daemon is shutting down") {
			t.Errorf("%v", err)
		}
		if waited := time.Since(begin); waited > 0 {
			t.Errorf("the end waited %v for a start", waited)
		}
		r.shim.slow = false
		r.start()
		if st := r.state("web"); !st.Running {
			t.Errorf("%+v", st)
		}
		if !r.nets.have[id] {
			t.Error("it runs without its network")
		}
		r.must(r.Remove(bg, "web", RemoveOptions{Force: true}))
	})
}
