package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/godbus/dbus/v5"
)

// Where the sockets are.
const (
	systemBus     = "/run/dbus/system_bus_socket"
	privateSocket = "/run/systemd/private" // systemd's own, for root, also without a bus
	booted        = "/run/systemd/system"  // there while systemd is the machine's init (sd_booted(3))
)

const (
	destination = "org.freedesktop.systemd1"
	objectPath  = "/org/freedesktop/systemd1"
	iface       = destination + ".Manager"
)

// Booted tells whether systemd runs this machine.
func Booted() bool {
	st, err := os.Lstat(booted)
	return err == nil && st.IsDir()
}

var errClosed = errors.New("the connection to systemd has ended")

func unavailable(format string, a ...any) error {
	return errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf(format, a...))
}

// dialSystem connects to the machine's systemd: by the bus, or directly when there
// is none.
func dialSystem(ctx context.Context) (bus, error) {
	if !Booted() {
		return nil, unavailable("systemd not running on this host, cannot use systemd cgroups manager")
	}
	if addr := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); addr != "" {
		return dial(ctx, addr, true)
	}
	b, err := dial(ctx, "unix:path="+systemBus, true)
	if err == nil {
		return b, nil
	}
	if direct, derr := dial(ctx, "unix:path="+privateSocket, false); derr == nil {
		return direct, nil
	}
	return nil, err
}

// dialUser connects to the systemd of the calling user's session.
func dialUser(ctx context.Context) (bus, error) {
	addr := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if addr == "" {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return nil, unavailable("could not find the user's D-Bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")
		}
		addr = "unix:path=" + dir + "/bus"
	}
	return dial(ctx, addr, true)
}

func dial(ctx context.Context, addr string, hello bool) (bus, error) {
	c, err := dbus.Dial(addr, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, unavailable("connect to systemd at %s: %w", addr, err)
	}
	// A bus that hangs must not hang us.
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	l := &link{conn: c, manager: c.Object(destination, objectPath), waiting: map[dbus.ObjectPath]chan string{}, early: map[dbus.ObjectPath]string{}}
	signals := make(chan *dbus.Signal, 16)
	c.Signal(signals)
	err = c.Auth([]dbus.Auth{dbus.AuthExternal(owner())})
	if err == nil && hello {
		// Directly connected, systemd sends what happens to everybody.
		if err = c.Hello(); err == nil {
			err = c.AddMatchSignalContext(ctx, dbus.WithMatchInterface(iface), dbus.WithMatchMember("JobRemoved"), dbus.WithMatchObjectPath(objectPath))
		}
	}
	if err != nil {
		c.Close()
		return nil, unavailable("connect to systemd at %s: %w", addr, err)
	}
	go l.listen(signals)
	return l, nil
}

// owner is this user as the other end of a socket sees him: outside of a user
// namespace.
func owner() string {
	uid := os.Geteuid()
	b, err := os.ReadFile("/proc/self/uid_map")
	if err == nil {
		uid = outerID(string(b), uid)
	}
	return strconv.Itoa(uid)
}

// outerID maps an id by a uid_map (user_namespaces(7)); the id itself when it is not
// mapped.
func outerID(uidMap string, id int) int {
	for line := range strings.Lines(uidMap) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		in, err1 := strconv.Atoi(f[0])
		out, err2 := strconv.Atoi(f[1])
		n, err3 := strconv.Atoi(f[2])
		if err1 == nil && err2 == nil && err3 == nil && id >= in && id-in < n {
			return out + id - in
		}
	}
	return id
}

// link is a bus over D-Bus. A job is over when a signal says so, which may come
// before the answer that names the job.
type link struct {
	conn    *dbus.Conn
	manager dbus.BusObject

	mu      sync.Mutex
	ended   bool
	flying  int // calls whose job is not known yet
	waiting map[dbus.ObjectPath]chan string
	early   map[dbus.ObjectPath]string // results while calls fly
}

func (l *link) alive() bool { return l.conn.Connected() }

func (l *link) close() { l.conn.Close() }

func (l *link) call(ctx context.Context, method string, args ...any) error {
	return l.manager.CallWithContext(ctx, iface+"."+method, 0, args...).Err
}

func (l *link) property(ctx context.Context, name string) (any, error) {
	var v dbus.Variant
	err := l.manager.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, iface, name).Store(&v)
	return v.Value(), err
}

func (l *link) job(ctx context.Context, method string, args ...any) (string, error) {
	l.mu.Lock()
	l.flying++
	l.mu.Unlock()
	var path dbus.ObjectPath
	err := l.manager.CallWithContext(ctx, iface+"."+method, 0, args...).Store(&path)
	done := l.landed(path, err == nil)
	if err != nil {
		return "", err
	}
	select {
	case result, ok := <-done:
		if !ok {
			return "", errClosed
		}
		return result, nil
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.waiting, path)
		l.mu.Unlock()
		return "", fmt.Errorf("timed out waiting for systemd's job of %s: %w", method, ctx.Err())
	}
}

// landed ends the flight of a call whose job is path and returns where its result
// will be.
func (l *link) landed(path dbus.ObjectPath, ok bool) <-chan string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying--
	var done chan string
	if ok {
		done = make(chan string, 1)
		if r, is := l.early[path]; is {
			done <- r
		} else if l.ended {
			close(done)
		} else {
			l.waiting[path] = done
		}
	}
	if l.flying == 0 {
		clear(l.early)
	}
	return done
}

// listen hands on the results of jobs until the connection ends.
func (l *link) listen(signals <-chan *dbus.Signal) {
	for s := range signals {
		if s.Name == iface+".JobRemoved" && len(s.Body) == 4 {
			path, ok1 := s.Body[1].(dbus.ObjectPath)
			result, ok2 := s.Body[3].(string)
			if ok1 && ok2 {
				l.removed(path, result)
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for p, c := range l.waiting {
		close(c)
		delete(l.waiting, p)
	}
}

func (l *link) removed(path dbus.ObjectPath, result string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.waiting[path]; ok {
		c <- result
		delete(l.waiting, path)
	} else if l.flying > 0 {
		l.early[path] = result
	}
}
