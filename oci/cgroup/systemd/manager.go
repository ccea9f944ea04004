package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// callTime bounds one call, and the job it begins: systemd may be busy with a boot.
const callTime = 30 * time.Second

// bus is a connection to a manager.
type bus interface {
	// call calls a method of the manager.
	call(ctx context.Context, method string, args ...any) error
	// job calls a method that begins a job and returns how the job ended.
	job(ctx context.Context, method string, args ...any) (string, error)
	// property reads one of the manager's properties.
	property(ctx context.Context, name string) (any, error)
	// alive is false when the connection has ended.
	alive() bool
	close()
}

// Manager is a systemd that makes units. It connects when it is first asked and
// again when the connection broke. It is safe for concurrent use.
type Manager struct {
	user bool
	dial func(context.Context) (bus, error)

	mu      sync.Mutex
	conn    bus
	version int // 0: not asked yet
}

// NewManager returns the machine's systemd; with user that of the calling user.
func NewManager(user bool) *Manager {
	m := &Manager{user: user, dial: dialSystem}
	if user {
		m.dial = dialUser
	}
	return m
}

// Close ends the connection. The Manager may still be used.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		m.conn.close()
		m.conn = nil
	}
}

func (m *Manager) bus(ctx context.Context) (bus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil && m.conn.alive() {
		return m.conn, nil
	}
	if m.conn != nil {
		m.conn.close()
		m.conn = nil
	}
	c, err := m.dial(ctx)
	if err != nil {
		return nil, err
	}
	m.conn = c
	return c, nil
}

// with runs f on a connection, and once again on a new one when it broke meanwhile.
// What f does may have been done then.
func (m *Manager) with(ctx context.Context, f func(ctx context.Context, b bus) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for try := 0; ; try++ {
		b, err := m.bus(ctx)
		if err != nil {
			return err
		}
		err = f(ctx, b)
		if err == nil || try > 0 || b.alive() || ctx.Err() != nil {
			return classed(err)
		}
	}
}

// The names of systemd's errors.
const (
	errUnitExists = "org.freedesktop.systemd1.UnitExists"
	errNoUnit     = "org.freedesktop.systemd1.NoSuchUnit"
	errNotLoaded  = "org.freedesktop.systemd1.UnitNotLoaded"
)

func named(err error, names ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, n := range names {
		if e.Name == n {
			return true
		}
	}
	return false
}

// classed gives errors of the bus their class.
func classed(err error) error {
	switch {
	case err == nil:
		return nil
	case named(err, "org.freedesktop.DBus.Error.AccessDenied", "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"):
		return errclass.With(errdefs.ErrPermissionDenied, err)
	case named(err, "org.freedesktop.DBus.Error.InvalidArgs", "org.freedesktop.DBus.Error.PropertyReadOnly", "org.freedesktop.systemd1.BadUnitSetting"):
		return errclass.With(errdefs.ErrInvalidArgument, err)
	case named(err, errNoUnit, errNotLoaded):
		return errclass.With(errdefs.ErrNotFound, err)
	case named(err, errUnitExists):
		return errclass.With(errdefs.ErrAlreadyExists, err)
	}
	return err
}

// Version is the manager's, 252; 0 when it does not say.
func (m *Manager) Version(ctx context.Context) int {
	m.mu.Lock()
	v := m.version
	m.mu.Unlock()
	if v != 0 {
		return v
	}
	s, err := m.text(ctx, "Version")
	if err != nil {
		return 0
	}
	v = parseVersion(s)
	m.mu.Lock()
	m.version = v
	m.mu.Unlock()
	return v
}

// parseVersion reads "252.38-1~deb12u1", "v245.4-4ubuntu3" and "systemd 239".
func parseVersion(s string) int {
	at := strings.IndexAny(s, "0123456789")
	if at < 0 {
		return 0
	}
	s = s[at:]
	if end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
		s = s[:end]
	}
	n, _ := strconv.Atoi(s)
	return n
}

func (m *Manager) text(ctx context.Context, property string) (s string, err error) {
	err = m.with(ctx, func(ctx context.Context, b bus) error {
		v, err := b.property(ctx, property)
		if err != nil {
			return err
		}
		var ok bool
		if s, ok = v.(string); !ok {
			return fmt.Errorf("property %s of systemd is a %T", property, v)
		}
		return nil
	})
	return s, err
}

// Root is the cgroup path that slices of this manager lie below: "/" for the
// machine's, the user's service otherwise.
func (m *Manager) Root(ctx context.Context) (string, error) {
	if !m.user {
		return "/", nil
	}
	s, err := m.text(ctx, "ControlGroup")
	if err != nil {
		return "", fmt.Errorf("ask the user's systemd for its cgroup: %w", err)
	}
	if !strings.HasPrefix(s, "/") {
		return "", fmt.Errorf("the user's systemd has the cgroup %q", s)
	}
	return s, nil
}

// Start makes the unit, with the process pid in it, and waits until it is there.
// A unit of that name that has failed is forgotten first. Class ErrAlreadyExists.
func (m *Manager) Start(ctx context.Context, p Place, pid int, v2 bool, extra []Property) error {
	props := startProps(p, pid, v2, extra)
	type aux struct {
		Name  string
		Props []Property
	}
	err := m.with(ctx, func(ctx context.Context, b bus) error {
		for try := 0; ; try++ {
			result, err := b.job(ctx, "StartTransientUnit", p.Name, "replace", props, []aux{})
			if named(err, errUnitExists) && try == 0 {
				if err := b.call(ctx, "ResetFailedUnit", p.Name); err == nil {
					continue
				}
			}
			if err == nil && result != "done" {
				err = fmt.Errorf("the job ended as %q", result)
			}
			return err
		}
	})
	if err != nil {
		return fmt.Errorf("unable to start unit %q: %w", p.Name, err)
	}
	return nil
}

// Unit returns a unit that exists, or did.
func (m *Manager) Unit(name string) *Unit { return &Unit{m: m, name: name} }

// Unit is a container's unit. It is a cgroup.Unit.
type Unit struct {
	m    *Manager
	name string
}

var _ cgroup.Unit = (*Unit)(nil)

// Limit tells systemd what is about to be written to the cgroup's files.
func (u *Unit) Limit(s []cgroup.Setting) error {
	ctx := context.Background()
	version := 0
	for _, x := range s {
		if strings.HasPrefix(x.File, "cpu") { // only there it matters
			version = u.m.Version(ctx)
			break
		}
	}
	props, err := limitProps(s, version)
	if err != nil {
		return err
	}
	return u.set(ctx, props)
}

// AllowDevices tells systemd which devices may be used.
func (u *Unit) AllowDevices(rules []specs.LinuxDeviceCgroup) error {
	f, err := os.Open("/proc/devices")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := parseDevices(f)
	if err != nil {
		return err
	}
	return u.set(context.Background(), deviceProps(rules, names))
}

func (u *Unit) set(ctx context.Context, props []Property) error {
	if len(props) == 0 {
		return nil
	}
	const runtime = true // not for the next boot
	err := u.m.with(ctx, func(ctx context.Context, b bus) error {
		return b.call(ctx, "SetUnitProperties", u.name, runtime, props)
	})
	if err != nil {
		return fmt.Errorf("unable to set unit properties of %q: %w", u.name, err)
	}
	return nil
}

// Stop ends the unit, whose processes are dead, and forgets it. One that is not
// there is no error.
func (u *Unit) Stop() error {
	err := u.m.with(context.Background(), func(ctx context.Context, b bus) error {
		_, err := b.job(ctx, "StopUnit", u.name, "replace")
		if err == nil || named(err, errNoUnit, errNotLoaded) {
			// A failed unit stays until it is reset.
			err = b.call(ctx, "ResetFailedUnit", u.name)
		}
		if named(err, errNoUnit, errNotLoaded) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("unable to stop unit %q: %w", u.name, err)
	}
	return nil
}
