package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/networktest/tcp"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

const inNetns = "GANTRY_NETWORK_TEST"

// TestMain runs the tests again in a network namespace of their own when it may: no
// test touches the machine's interfaces, sysctls or firewall.
func TestMain(m *testing.M) {
	if os.Getuid() == 0 && os.Getenv(inNetns) == "" {
		cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
		cmd.Env = append(os.Environ(), inNetns+"=1")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		if cmd.ProcessState == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(cmd.ProcessState.ExitCode())
	}
	os.Exit(m.Run())
}

func needNetns(t testing.TB) {
	t.Helper()
	if os.Getenv(inNetns) == "" {
		t.Skip("needs root, for a network namespace of its own")
	}
	nl, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	if _, err := nl.Do(rtnl.SetUp(1)); err != nil {
		t.Fatal(err)
	}
}

// newService starts a service over a fresh data-root and takes all of it away after
// the test.
func newService(t testing.TB, edit func(*Config)) (*Service, *event.Bus) {
	t.Helper()
	needNetns(t)
	cfg := DefaultConfig(t.TempDir())
	cfg.ResolvConf = filepath.Join(cfg.DataRoot, "resolv.conf")
	if err := os.WriteFile(cfg.ResolvConf, []byte("nameserver 192.0.2.53\nsearch example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(&cfg)
	}
	return startService(t, cfg)
}

func startService(t testing.TB, cfg Config) (*Service, *event.Bus) {
	t.Helper()
	bus := event.New()
	s, err := New(WithDrivers(cfg, nil), bus)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		cleanHost(t)
	})
	if err := s.Restore(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	return s, bus
}

// cleanHost removes every interface but loopback from the test's namespace.
func cleanHost(t testing.TB) {
	nl, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	links, err := nl.Links(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if l.Name != "lo" {
			nl.Do(rtnl.DelLink(l.Name))
		}
	}
	if bin, err := exec.LookPath("nft"); err == nil {
		exec.Command(bin, "flush", "ruleset").Run()
	}
}

// box is a running container as the network sees it.
type box struct {
	*Sandbox
	id string
	s  *Service
}

func (b *box) ip() netip.Addr { return b.Record.Endpoints[0].IPv4.Addr() }

func request(name string) SandboxRequest {
	id := fmt.Sprintf("%064x", []byte(name))
	return SandboxRequest{
		ContainerID: id[len(id)-64:], Name: name, Hostname: name,
		Endpoints: map[string]*network.EndpointSettings{NameBridge: {}},
	}
}

func run(t testing.TB, s *Service, r SandboxRequest) *box {
	t.Helper()
	sb, err := s.Acquire(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	b := &box{sb, r.ContainerID, s}
	t.Cleanup(b.stop)
	return b
}

func (b *box) stop() {
	if b.NetNS != nil {
		b.NetNS.Close()
		b.NetNS = nil
	}
	b.s.Release(context.Background(), b.id)
}

// serve answers every connection to port in the namespace with the text and the
// address it sees.
func serve(t testing.TB, h netns.Host, ns *os.File, netw, addr, text string) {
	t.Helper()
	var l net.Listener
	err := h.Inside(ns, func() (err error) { l, err = net.Listen(netw, addr); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s %s", text, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
			c.Close()
		}
	}()
}

// ask connects from a namespace (nil: the host's) and returns what it is told.
func ask(h netns.Host, ns *os.File, addr string) (string, error) {
	return askFor(h, ns, addr, 5*time.Second)
}

// tryAsk is ask where no answer is expected: it waits less.
func tryAsk(h netns.Host, ns *os.File, addr string) (string, error) {
	return askFor(h, ns, addr, 400*time.Millisecond)
}

func askFor(h netns.Host, ns *os.File, addr string, patience time.Duration) (string, error) {
	var c net.Conn
	var err error
	dial := func() error {
		c, err = dialHere(addr, patience)
		return err
	}
	if ns == nil {
		err = dial()
	} else {
		err = h.Inside(ns, dial)
	}
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

// dialHere makes a TCP connection on the calling thread, in its namespace.
func dialHere(addr string, patience time.Duration) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	fd, err := tcp.Connect(ap, patience)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	return net.FileConn(f)
}

// neighbour makes another machine on a wire to the host: 192.0.2.1 here, .2 there,
// with a route to the containers through here.
func neighbour(t testing.TB, s *Service) *os.File {
	t.Helper()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ns, err := netns.New(s.host.NS(), s.host.Conn(), []netns.Interface{{
		IfName: "eth0", HostIf: "wan0", MAC: mac, Bridge: 0,
		Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}, GW4: netip.MustParseAddr("192.0.2.1"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	l, err := s.host.Conn().LinkByName("wan0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.host.Conn().Do(rtnl.AddAddr(l.Index, netip.MustParsePrefix("192.0.2.1/24")), rtnl.AddAddr(l.Index, netip.MustParsePrefix("2001:db8::1/64"))); err != nil {
		t.Fatal(err)
	}
	// The kernel joins an IPv6 address' multicast group in a work queue: under load the first
	// solicitations may all come before, and then there is no route to the host for a while.
	for _, addr := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		waitFor(t, func() bool {
			_, err := tryAsk(s.host.NS(), ns, addr)
			return errors.Is(err, unix.ECONNREFUSED)
		})
	}
	return ns
}
