package netdev

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/rtnl"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type devices = map[string]specs.LinuxNetDevice

func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		d  devices
		ok bool
	}{
		"plain":              {devices{"eth0": {}, "eth1": {Name: "lan"}}, true},
		"swapped":            {devices{"a": {Name: "b"}, "b": {Name: "a"}}, true},
		"twice the same":     {devices{"a": {Name: "x"}, "b": {Name: "x"}}, false},
		"name of another":    {devices{"a": {Name: "b"}, "b": {}}, false},
		"empty":              {devices{"": {}}, false},
		"too long":           {devices{"a": {Name: "sixteencharacter"}}, false},
		"longest":            {devices{"a": {Name: "fifteencharacte"}}, true},
		"a path":             {devices{"a/b": {}}, false},
		"dots":               {devices{"a": {Name: ".."}}, false},
		"a pattern":          {devices{"a": {Name: "eth%d"}}, false},
		"an alias":           {devices{"eth0:1": {}}, false},
		"white space":        {devices{"a": {Name: "a b"}}, false},
		"control characters": {devices{"a": {Name: "a\x00"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkNames(c.d); (err == nil) != c.ok || err != nil && !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// space is a network namespace.
type space struct {
	t    *testing.T
	file *os.File
}

// newSpace makes one; it is gone with the test.
func newSpace(t *testing.T) space {
	t.Helper()
	got := make(chan *os.File, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Unshare(unix.CLONE_NEWNET) != nil {
			got <- nil
			return
		}
		f, _ := os.Open("/proc/thread-self/ns/net")
		got <- f
	}()
	f := <-got
	if f == nil {
		t.Skip("network namespaces need root")
	}
	t.Cleanup(func() { f.Close() })
	return space{t, f}
}

func (s space) do(f func(c *rtnl.Conn) error) {
	s.t.Helper()
	if err := inside(s.file, f); err != nil {
		s.t.Fatal(err)
	}
}

// pair makes a veth pair; it is the first end that is moved.
func (s space) pair(name string, mac net.HardwareAddr, addrs ...string) {
	s.t.Helper()
	s.do(func(c *rtnl.Conn) error {
		v := rtnl.Veth{Name: name + "-far", MTU: 1400, Peer: rtnl.Peer{Name: name, MAC: mac, NS: int(s.file.Fd())}}
		if _, err := c.Do(rtnl.AddVeth(v)); err != nil {
			return err
		}
		l, err := c.LinkByName(name)
		if err != nil {
			return err
		}
		return configure(c, l.Index, prefixes(addrs), len(addrs) > 0)
	})
}

func prefixes(texts []string) (out []netip.Prefix) {
	for _, a := range texts {
		out = append(out, netip.MustParsePrefix(a))
	}
	return out
}

// has checks a device: its state, MTU, hardware address and global addresses.
func (s space) has(name string, up bool, mac net.HardwareAddr, addrs ...string) {
	s.t.Helper()
	s.do(func(c *rtnl.Conn) error {
		l, err := c.LinkByName(name)
		if err != nil {
			return err
		}
		all, err := c.Addrs(l.Index)
		if err != nil {
			return err
		}
		var global []netip.Prefix
		for _, a := range all {
			if a.Global {
				global = append(global, a.Prefix)
			}
		}
		if l.Up() != up || l.MTU != 1400 || !slices.Equal(l.MAC, mac) || !slices.Equal(global, prefixes(addrs)) {
			s.t.Errorf("%s: up %v, MTU %d, %v, %v", name, l.Up(), l.MTU, l.MAC, global)
		}
		return nil
	})
}

func (s space) lacks(name string) {
	s.t.Helper()
	s.do(func(c *rtnl.Conn) error {
		if _, err := c.LinkByName(name); !errors.Is(err, unix.ENODEV) {
			s.t.Errorf("%s: %v", name, err)
		}
		return nil
	})
}

// move is Move from s.
func (s space) move(d devices, to space) (m *Moved, err error) {
	s.do(func(*rtnl.Conn) error {
		m, err = Move(d, to.file)
		return nil
	})
	return m, err
}

func TestMove(t *testing.T) {
	host, ctr := newSpace(t), newSpace(t)
	a, b := net.HardwareAddr{2, 0, 0, 0, 0, 10}, net.HardwareAddr{2, 0, 0, 0, 0, 11}
	host.pair("va", a, "192.0.2.5/24", "2001:db8::5/64")
	host.pair("vb", b)
	d := devices{"va": {Name: "lan"}, "vb": {}}
	m, err := host.move(d, ctr)
	if err != nil {
		t.Fatal(err)
	}
	host.lacks("va")
	ctr.has("lan", true, a, "192.0.2.5/24", "2001:db8::5/64")
	ctr.has("vb", true, b)
	if err := m.Back(); err != nil {
		t.Fatal(err)
	}
	ctr.lacks("lan")
	ctr.lacks("vb")
	host.has("va", true, a, "192.0.2.5/24", "2001:db8::5/64")
	host.has("vb", false, b)

	// What cannot be done whole is not done.
	ctr.pair("vb", b)
	if _, err := host.move(d, ctr); !errdefs.IsInvalidArgument(err) {
		t.Errorf("a taken name: %v", err)
	}
	if _, err := host.move(devices{"va": {}, "vx": {}}, ctr); !errdefs.IsNotFound(err) {
		t.Errorf("a missing device: %v", err)
	}
	if _, err := host.move(devices{"va": {}, "lo": {Name: "lo9"}}, ctr); !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) {
		t.Errorf("one that cannot be moved: %v", err)
	}
	host.has("va", true, a, "192.0.2.5/24", "2001:db8::5/64")
	host.has("vb", false, b)
	ctr.lacks("va")
}
