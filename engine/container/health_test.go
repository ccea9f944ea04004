package container

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
)

// sick creates and starts a container whose health is what r.shim.probe says.
func (r *rig) sick(name string, h container.HealthConfig, host *container.HostConfig) {
	r.t.Helper()
	h.Test = []string{"CMD", "probe"}
	_, err := r.Create(bg, CreateOptions{Name: name, Config: &container.Config{Image: "busybox", Cmd: []string{"sleep"}, Healthcheck: &h}, HostConfig: host})
	r.must(err)
	r.must(r.Start(bg, name))
}

// answers is what probes answer; it may be changed while they run.
type answers struct {
	mu     sync.Mutex
	output string
	code   int
	given  int
}

func (a *answers) are(output string, code int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.output, a.code = output, code
}

func (a *answers) next() (string, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.given++
	return a.output, a.code
}

func (a *answers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.given
}

// after lets time pass, and what follows from it happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) wantHealth(ref string, status container.HealthStatus, streak, log int) {
	r.t.Helper()
	h := r.state(ref).Health
	if h == nil || h.Status != status || h.FailingStreak != streak || len(h.Log) != log {
		r.t.Errorf("health of %s: %+v, want %s, %d in a row, %d results", ref, h, status, streak, log)
	}
}

// healths are the health events since a time, and those of the names given.
func (r *rig) healths(names map[string]string, since time.Time) (out []string) {
	past, sub := r.bus.Subscribe(since)
	sub.Close()
	for _, ev := range past {
		if strings.HasPrefix(string(ev.Action), "health_status") || names != nil && names[string(ev.Action)] != "" {
			out = append(out, string(ev.Action))
		}
	}
	return out
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		begin := time.Now()
		var probes answers
		probes.are("fine\n", 0)
		r.shim.probe = probes.next
		r.sick("web", container.HealthConfig{Interval: 10 * time.Second, Retries: 2}, nil)
		r.wantHealth("web", container.Starting, 0, 0)
		list := func(h string) int {
			l, err := r.List(bg, ListOptions{All: true, Filters: filter.Args{"health": {h}}})
			r.must(err)
			return len(l)
		}
		status := func() string {
			l, err := r.List(bg, ListOptions{All: true})
			r.must(err)
			_, s, _ := strings.Cut(l[0].Status, "(")
			return strings.TrimSuffix(s, ")")
		}
		if s := status(); s != "health: starting" || list("starting") != 1 || list("none") != 0 {
			t.Errorf("%q", s)
		}
		after(9 * time.Second)
		r.wantHealth("web", container.Starting, 0, 0)
		after(2 * time.Second)
		r.wantHealth("web", container.Healthy, 0, 1)
		if l := r.state("web").Health.Log[0]; l.Output != "fine\n" || l.ExitCode != 0 || l.End.Before(l.Start) {
			t.Errorf("%+v", l)
		}
		if s := status(); s != "healthy" || list("healthy") != 1 || list("starting") != 0 {
			t.Errorf("%q", s)
		}
		probes.are(strings.Repeat("x", 5000), 1)
		after(10 * time.Second)
		r.wantHealth("web", container.Healthy, 1, 2)
		if l := r.state("web").Health.Log[1]; l.Output != strings.Repeat("x", 4096)+"..." || l.ExitCode != 1 {
			t.Errorf("%d bytes, %d", len(l.Output), l.ExitCode)
		}
		after(10 * time.Second)
		r.wantHealth("web", container.Unhealthy, 2, 3)
		probes.are("", 0)
		after(40 * time.Second)
		r.wantHealth("web", container.Healthy, 0, 5)

		// Frozen it is not asked, and keeps what it was.
		r.must(r.Pause(bg, "web"))
		runs := probes.count()
		after(60 * time.Second)
		r.wantHealth("web", container.Healthy, 0, 5)
		if probes.count() != runs {
			t.Error("probed while paused")
		}
		r.must(r.Unpause(bg, "web"))
		after(11 * time.Second)
		if probes.count() == runs {
			t.Error("not probed after the pause")
		}

		// A start begins anew, with the results so far still there.
		r.must(r.Stop(bg, "web", StopOptions{}))
		r.wantHealth("web", container.Unhealthy, 0, 5)
		runs = probes.count()
		after(60 * time.Second)
		if probes.count() != runs {
			t.Error("probed when stopped")
		}
		r.must(r.Start(bg, "web"))
		r.wantHealth("web", container.Starting, 0, 5)
		after(11 * time.Second)
		r.wantHealth("web", container.Healthy, 0, 5)
		want := []string{"health_status: healthy", "health_status: unhealthy", "health_status: healthy", "health_status: healthy"}
		if got := r.healths(nil, begin); !slices.Equal(got, want) {
			t.Errorf("events %q", got)
		}
		if ids := r.execs.Running(r.index.All()[0].ID); len(ids) != 0 {
			t.Errorf("probes left: %v", ids)
		}
		for _, id := range r.shim.probes {
			_, err := r.ExecInspect(bg, id)
			wantErr(t, err, errdefs.ErrNotFound, "No such exec instance")
		}
		if len(r.shim.probes) != probes.count() {
			t.Errorf("%d of %d probes seen", len(r.shim.probes), probes.count())
		}
		r.must(r.Remove(bg, "web", RemoveOptions{Force: true}))
	})
}

func TestHealthStartPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var probes answers
		probes.are("", 1)
		r.shim.probe = probes.next
		r.sick("web", container.HealthConfig{Interval: time.Minute, StartPeriod: 20 * time.Second, StartInterval: 3 * time.Second, Retries: 1}, nil)
		after(19 * time.Second)
		r.wantHealth("web", container.Starting, 0, 5)
		if n := probes.count(); n != 6 {
			t.Errorf("%d probes in the start period", n)
		}
		after(2 * time.Minute)
		r.wantHealth("web", container.Unhealthy, 2, 5)
	})
}

func TestHealthTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.shim.probe = func() (string, int) { return "thinking", -1 }
		r.sick("web", container.HealthConfig{Interval: 10 * time.Second, Timeout: 3 * time.Second, Retries: 1}, nil)
		after(12 * time.Second)
		r.wantHealth("web", container.Starting, 0, 0)
		if i, err := r.Inspect(bg, "web", false); err != nil || len(i.ExecIDs) != 1 {
			t.Errorf("%v %v", i.ExecIDs, err)
		}
		after(2 * time.Second)
		r.wantHealth("web", container.Unhealthy, 1, 1)
		if l := r.state("web").Health.Log[0]; l.Output != "Health check exceeded timeout (3s): thinking" || l.ExitCode != -1 {
			t.Errorf("%+v", l)
		}
		if n := r.shim.len(); n != 1 {
			t.Errorf("%d processes: the probe lives", n)
		}
		// A command that is not there is a result as well.
		r.must(r.Remove(bg, "web", RemoveOptions{Force: true}))
		_, err := r.Create(bg, CreateOptions{Name: "web", Config: &container.Config{
			Image: "busybox", Cmd: []string{"sleep"}, Healthcheck: &container.HealthConfig{Test: []string{"CMD", "fail"}, Interval: time.Second, Retries: 1},
		}})
		r.must(err)
		r.must(r.Start(bg, "web"))
		after(1500 * time.Millisecond)
		if l := r.state("web").Health.Log; len(l) != 1 || l[0].ExitCode != -1 || !strings.Contains(l[0].Output, "executable file not found in $PATH") {
			t.Errorf("%+v", l)
		}
	})
}

func TestHealthOverDaemons(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var probes answers
		r.shim.probe = probes.next
		r.sick("web", container.HealthConfig{Interval: 10 * time.Second, Timeout: time.Hour, Retries: 2}, nil)
		r.sick("gone", container.HealthConfig{Interval: 10 * time.Second}, nil)
		after(11 * time.Second)
		probes.are("", 1)
		after(10 * time.Second)
		r.wantHealth("web", container.Healthy, 1, 2)
		probes.are("", -1)
		after(10 * time.Second) // a probe hangs now
		r.stop()
		id := r.index.All()[0].ID
		for _, o := range r.index.All() {
			if o.Name() == "gone" {
				id = o.ID
			}
		}
		r.shim.exit(shim.Key{Container: id, Run: 1}, 0, 0)
		probes.are("", 1)
		r.start()
		synctest.Wait()
		if n := r.shim.len(); n != 1 {
			t.Errorf("%d processes: the probe of the daemon before lives", n)
		}
		r.wantHealth("gone", container.Unhealthy, 1, 2)
		after(time.Second) // due at once: the last result is older than the interval
		r.wantHealth("web", container.Unhealthy, 2, 3)
		r.must(r.Stop(bg, "web", StopOptions{}))
		r.stop()
		r.start()
		r.wantHealth("web", container.Unhealthy, 2, 3)
	})
}

func TestHealthOnFailure(t *testing.T) {
	for _, c := range []struct {
		action, policy string
		status         string
		code, restarts int
		events         string
	}{
		{"none", "no", "running", 0, 0, "start"},
		{"stop", "always", "exited", 143, 0, "start kill die stop"},
		{"kill", "no", "exited", 137, 0, "start kill die"},
		{"kill", "unless-stopped", "running", 0, 1, "start kill die start"},
		{"restart", "no", "running", 0, 0, "start kill die stop start restart"},
	} {
		t.Run(fmt.Sprint(c.action, " ", c.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				begin := time.Now()
				r.shim.probe = func() (string, int) { return "", 1 }
				r.sick("web", container.HealthConfig{Interval: 10 * time.Second, Retries: 1}, &container.HostConfig{
					RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(c.policy)},
					Annotations:   map[string]string{extension.HealthOnFailure: c.action},
				})
				after(15 * time.Second)
				i, err := r.Inspect(bg, "web", false)
				r.must(err)
				if string(i.State.Status) != c.status || i.State.ExitCode != c.code || i.RestartCount != c.restarts {
					t.Errorf("%+v, %d restarts", i.State, i.RestartCount)
				}
				got := r.healths(map[string]string{"start": "x", "kill": "x", "die": "x", "stop": "x", "restart": "x"}, begin)
				got = slices.DeleteFunc(got, func(s string) bool { return strings.HasPrefix(s, "health") })
				if strings.Join(got, " ") != c.events {
					t.Errorf("events %q", got)
				}
				r.must(r.Remove(bg, "web", RemoveOptions{Force: true}))
			})
		})
	}
}

func TestHealthRefusals(t *testing.T) {
	r := newRig(t)
	for text, c := range map[string]struct {
		h       *container.HealthConfig
		annotat string
	}{
		"Interval in Healthcheck cannot be less than 1ms":      {h: &container.HealthConfig{Interval: 1}},
		"Timeout in Healthcheck cannot be less than 1ms":       {h: &container.HealthConfig{Timeout: 1}},
		"StartPeriod in Healthcheck cannot be less than 1ms":   {h: &container.HealthConfig{StartPeriod: 1}},
		"StartInterval in Healthcheck cannot be less than 1ms": {h: &container.HealthConfig{StartInterval: 1}},
		"Retries in Healthcheck cannot be negative":            {h: &container.HealthConfig{Retries: -1}},
		"must be one of none, stop, kill, restart":             {h: &container.HealthConfig{Test: []string{"CMD", "x"}}, annotat: "reboot"},
		"gantry.health-on-failure needs a health check":        {annotat: "kill"},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := r.Create(bg, CreateOptions{
				Config:     &container.Config{Image: "busybox", Healthcheck: c.h},
				HostConfig: &container.HostConfig{Annotations: map[string]string{extension.HealthOnFailure: c.annotat}},
			})
			wantErr(t, err, errdefs.ErrInvalidArgument, text)
		})
	}
}
