package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/test/poll"
	"github.com/godbus/dbus/v5"
)

// busDir has a path that D-Bus addresses take as it is.
func busDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// startBus runs a D-Bus daemon of the test's own at addr.
func startBus(t *testing.T, dir string) (stop func()) {
	t.Helper()
	exe, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("needs dbus-daemon")
	}
	conf := filepath.Join(dir, "conf")
	text := fmt.Sprintf(`<busconfig><type>session</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(dir, "bus"))
	c := exec.Command(exe, "--config-file="+conf, "--nofork", "--nosyslog", "--nopidfile")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { _ = c.Process.Kill(); _ = c.Wait() })
	t.Cleanup(stop)
	poll.Until(t, "dbus-daemon listens", func() bool {
		c, err := net.Dial("unix", filepath.Join(dir, "bus"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return stop
}

// manager1 answers as systemd does.
type manager1 struct {
	t    *testing.T
	conn *dbus.Conn
	// early sends a job's end before the answer that names it.
	early bool
	mu    sync.Mutex
	got   []Property
	jobs  int
}

func (m *manager1) StartTransientUnit(name, _ string, props []Property, _ []struct {
	Name  string
	Props []Property
},
) (dbus.ObjectPath, *dbus.Error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = props
	m.jobs++
	path := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", m.jobs))
	id := uint32(m.jobs)
	send := func() { _ = m.conn.Emit(objectPath, iface+".JobRemoved", id, path, name, "done") }
	if m.early {
		send()
	} else {
		// After the answer, which this connection sends in its turn.
		defer time.AfterFunc(10*time.Millisecond, send)
	}
	return path, nil
}

func (*manager1) StopUnit(name, _ string) (dbus.ObjectPath, *dbus.Error) {
	return "", &dbus.Error{Name: errNoUnit, Body: []any{"Unit " + name + " not loaded."}}
}

func (*manager1) ResetFailedUnit(string) *dbus.Error { return nil }

func (m *manager1) SetUnitProperties(_ string, _ bool, props []Property) *dbus.Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = props
	return nil
}

func (*manager1) Get(_, name string) (dbus.Variant, *dbus.Error) {
	return dbus.MakeVariant(map[string]string{"Version": "252.1", "ControlGroup": "/user.slice/user@1.service"}[name]), nil
}

func (m *manager1) last() []Property {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.got
}

func (m *manager1) serve(dir string) {
	m.t.Helper()
	c, err := dbus.Connect("unix:path=" + dir + "/bus")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	m.conn = c
	if err := errors.Join(c.Export(m, objectPath, iface), c.Export(m, objectPath, "org.freedesktop.DBus.Properties")); err != nil {
		m.t.Fatal(err)
	}
	if r, err := c.RequestName(destination, 0); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		m.t.Fatal(r, err)
	}
}

// TestOverTheWire talks to a manager over a real bus.
func TestOverTheWire(t *testing.T) {
	for _, early := range []bool{false, true} {
		t.Run(fmt.Sprintf("early=%v", early), func(t *testing.T) {
			dir := busDir(t)
			stop := startBus(t, dir)
			t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+dir+"/bus")
			srv := &manager1{t: t, early: early}
			srv.serve(dir)
			m := NewManager(true)
			defer m.Close()
			if root, err := m.Root(t.Context()); err != nil || root != "/user.slice/user@1.service" {
				t.Fatal(root, err)
			}
			if v := m.Version(t.Context()); v != 252 {
				t.Errorf("version %d", v)
			}
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					pl, _ := ParsePath("", fmt.Sprint("c", i), true)
					if err := m.Start(t.Context(), pl, os.Getpid(), true, nil); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if got := srv.last(); len(got) != 9 || got[3].Value.Signature().String() != "au" {
				t.Errorf("systemd got %v", got)
			}
			u := m.Unit("runc-c1.scope")
			if err := u.Limit([]cgroup.Setting{{File: "cpuset.cpus", Value: "0-2"}}); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(srv.last()); got != "[{AllowedCPUs @ay [0x7]}]" {
				t.Errorf("systemd got %v", got)
			}
			if err := u.AllowDevices(cgroup.DefaultDevices()); err != nil || len(srv.last()) != 3 {
				t.Errorf("%v, %v", srv.last(), err)
			}
			if err := u.Stop(); err != nil {
				t.Error(err)
			}
			// The bus goes and comes back: a new connection.
			stop()
			poll.Until(t, "the connection ends", func() bool { return !m.conn.alive() })
			startBus(t, dir)
			(&manager1{t: t}).serve(dir)
			if err := u.Stop(); err != nil {
				t.Errorf("after the bus was restarted: %v", err)
			}
		})
	}
}

func TestJobsEndWithTheConnection(t *testing.T) {
	dir := busDir(t)
	stop := startBus(t, dir)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+dir+"/bus")
	(&silent{}).serve(t, dir, stop)
	pl, _ := ParsePath("", "x", true)
	m := NewManager(true)
	defer m.Close()
	if err := m.Start(t.Context(), pl, 1, true, nil); err == nil {
		t.Error("no error, and no job has ended")
	}
}

// silent ends the bus instead of the job.
type silent struct{ stop func() }

func (s *silent) StartTransientUnit(string, string, []Property, []struct {
	Name  string
	Props []Property
},
) (dbus.ObjectPath, *dbus.Error) {
	time.AfterFunc(10*time.Millisecond, s.stop)
	return "/org/freedesktop/systemd1/job/1", nil
}

func (s *silent) serve(t *testing.T, dir string, stop func()) {
	t.Helper()
	s.stop = stop
	m := &manager1{t: t}
	m.serve(dir)
	if err := m.conn.Export(s, objectPath, iface); err != nil {
		t.Fatal(err)
	}
}

func TestNoBus(t *testing.T) {
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	if _, err := dialUser(context.Background()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("no session: %v", err)
	}
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	if _, err := dialUser(context.Background()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("no bus: %v", err)
	}
	if Booted() {
		return
	}
	if _, err := dialSystem(context.Background()); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("no systemd: %v", err)
	}
}
