// Package netns makes network namespaces, the interfaces in them, and bridges, with as few
// netlink messages as possible. Its callers decide what to make.
package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Interface is one interface to be made in a container's namespace.
type Interface struct {
	IfName string
	// HostIf is a veth's host end; empty for macvlan and ipvlan.
	HostIf string
	MAC    net.HardwareAddr
	MTU    int
	Addrs  []netip.Prefix
	// GW4 and GW6 are default routes, where this interface gives them.
	GW4, GW6 netip.Addr
	// Routes beside those.
	Routes []Route
	// Sysctls are paths below /proc/sys and values, set before the interface is up.
	Sysctls [][2]string
	// Bridge is the index of the bridge that the interface becomes a port of; 0: none.
	Bridge int
	// Isolated cuts the port off from the bridge's other isolated ports (icc off).
	Isolated bool
	// Filtered is what BridgeFiltered says in the host's namespace.
	Filtered bool
	// Child makes the interface instead of a veth pair.
	Child func(rtnl.Peer) *rtnl.Request
	// Move takes this interface of the host instead of making one.
	Move string
	// Announce sends a gratuitous ARP when the interface comes up.
	Announce bool
}

// Route leads to a destination by a next hop, or straight onto the interface.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // invalid: onto the interface
}

// Host is the namespace the daemon works in: opened once, on a thread that is in it,
// because every goroutine that enters another one must find back.
type Host struct{ F *os.File }

// OpenHost opens the calling thread's network namespace. Close it.
func OpenHost() (Host, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return Host{}, fmt.Errorf("opening the network namespace: %w", err)
	}
	return Host{f}, nil
}

// Close closes the descriptor.
func (h Host) Close() error { return h.F.Close() }

// Inside runs do on a thread in another network namespace: a new one when ns is nil.
// A thread that cannot come back is not used again. It is never the process's first one, which
// /proc/self speaks of: whoever reads there meanwhile means the host.
func (h Host) Inside(ns *os.File, do func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			errc <- h.Inside(ns, do) // on another one, while this one is taken
			return
		}
		var err error
		if ns == nil {
			err = unix.Unshare(unix.CLONE_NEWNET)
		} else {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			errc <- fmt.Errorf("entering a network namespace: %w", err)
			runtime.UnlockOSThread() // still where it was
			return
		}
		err = do()
		if back := unix.Setns(int(h.F.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with this goroutine
		errc <- err
	}()
	return <-errc
}

// New makes a network namespace with loopback and the given interfaces up.
// When it fails nothing is left: the namespace dies with its descriptor, and the
// interfaces with the namespace. then is run in the namespace when it is done.
func New(h Host, host *rtnl.Conn, ifs []Interface, then ...func() error) (ns *os.File, err error) {
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		ns, err = create(h, host, ifs, then)
		if err == nil || wait > childPatience || !occupied(err, ifs) {
			return ns, err
		}
		time.Sleep(wait)
	}
}

// childPatience is the longest pause before a child interface is tried for the last time.
const childPatience = time.Second

// occupied tells that a child interface could not be made because of another one, which
// may be about to go: a namespace dies some time after its last process. Its parent has
// one child in mode passthru (EINVAL), and no two of one hardware address (EADDRINUSE).
func occupied(err error, ifs []Interface) bool {
	child := false
	for _, p := range ifs {
		child = child || p.Child != nil
	}
	return child && (errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY))
}

func create(h Host, host *rtnl.Conn, ifs []Interface, then []func() error) (ns *os.File, err error) {
	err = h.Inside(nil, func() (err error) {
		ns, err = os.Open("/proc/thread-self/ns/net")
		if err != nil {
			return fmt.Errorf("opening a network namespace: %w", err)
		}
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		up := []*rtnl.Request{rtnl.SetUp(1)} // loopback is always the first
		indexes := make([]int, len(ifs))
		for i, p := range ifs {
			index, err := makeLink(host, in, p, i+2, ns)
			if err != nil {
				return err
			}
			reqs, err := configure(p, index)
			if err != nil {
				return err
			}
			up = append(up, reqs...)
			indexes[i] = index
		}
		if _, err = in.Do(up...); err != nil {
			return err
		}
		for _, do := range then {
			if err := do(); err != nil {
				return err
			}
		}
		if err := awaitCarrier(host, ifs); err != nil {
			return err
		}
		for i, p := range ifs {
			if err := AwaitAddrs(in, indexes[i], p.Addrs); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ns != nil {
		ns.Close()
		ns = nil
	}
	return ns, err
}

// AddInterface adds one interface to a running container's namespace.
func AddInterface(h Host, host *rtnl.Conn, ns *os.File, p Interface) error {
	for wait := 5 * time.Millisecond; ; wait *= 2 {
		err := addInterface(h, host, ns, p)
		if err == nil || wait > childPatience || !occupied(err, []Interface{p}) {
			return err
		}
		time.Sleep(wait)
	}
}

func addInterface(h Host, host *rtnl.Conn, ns *os.File, p Interface) error {
	return h.Inside(ns, func() error {
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := in.LinkByName(p.IfName); err == nil {
			return errclass.Conflict("interface %s exists in the container", p.IfName)
		}
		index, err := makeLink(host, in, p, 0, ns)
		if err != nil {
			return err
		}
		reqs, err := configure(p, index)
		if err == nil {
			_, err = in.Do(reqs...)
		}
		if err == nil {
			err = awaitCarrier(host, []Interface{p})
		}
		if err == nil {
			err = AwaitAddrs(in, index, p.Addrs)
		}
		if err != nil && p.Move == "" {
			_, derr := in.Do(rtnl.DelLink(p.IfName))
			err = errors.Join(err, derr)
		}
		if err != nil && p.Move != "" {
			err = errors.Join(err, MoveBack(h, in, p.IfName, p.Move))
		}
		return err
	})
}

// move brings an interface of the host into the namespace, named as requested and down:
// only so can it be renamed and given another hardware address.
func move(host *rtnl.Conn, p Interface, ns *os.File) error {
	l, err := host.LinkByName(p.Move)
	if err != nil {
		return err
	}
	if l.Up() {
		if _, err := host.Do(rtnl.SetDown(l.Index)); err != nil {
			return err
		}
	}
	_, err = host.Do(rtnl.MoveLink(l.Index, p.IfName, p.MAC, int(ns.Fd())))
	return err
}

// MoveBack brings an interface that was moved back to the host, by a socket in the
// container's namespace. One that is gone is an error with ENODEV.
func MoveBack(h Host, in *rtnl.Conn, ifName, hostName string) error {
	l, err := in.LinkByName(ifName)
	if err != nil {
		return err
	}
	_, err = in.Do(rtnl.SetDown(l.Index), rtnl.MoveLink(l.Index, hostName, nil, int(h.F.Fd())))
	return err
}

// awaitCarrier has the kernel finish what it does beside us when a link comes up: until
// then the bridge's port drops packets, and a first connection costs a second's
// retransmission. Asking for a link does that at once (rtnl_getlink, kernel 6.8).
func awaitCarrier(host *rtnl.Conn, ifs []Interface) error {
	var reqs []*rtnl.Request
	for _, p := range ifs {
		if p.HostIf != "" {
			reqs = append(reqs, rtnl.GetLink(p.HostIf))
		}
		if p.Bridge != 0 {
			reqs = append(reqs, rtnl.GetLinkIndex(p.Bridge)) // its own carrier comes with the first port
		}
	}
	_, err := host.Do(reqs...)
	return err
}

// makeLink makes the interface, down, and returns its index inside. want is the index
// to ask for: knowing it beforehand saves a question. It may be taken (kernels with
// fall-back tunnels in every namespace).
func makeLink(host, in *rtnl.Conn, p Interface, want int, ns *os.File) (int, error) {
	peer := rtnl.Peer{Name: p.IfName, Index: want, MAC: p.MAC, NS: int(ns.Fd())}
	build := func() ([]rtnl.Reply, error) {
		if p.Child != nil {
			replies, err := host.Do(p.Child(peer))
			if errors.Is(err, unix.EINVAL) {
				err = fmt.Errorf("%w (another container may have the parent interface to itself: mode passthru)", err)
			}
			return replies, err
		}
		if p.Move != "" {
			want = 0 // it keeps the index that it has, where that is free
			return nil, move(host, p, ns)
		}
		return host.Do(rtnl.AddVeth(rtnl.Veth{Name: p.HostIf, Master: p.Bridge, MTU: p.MTU, Peer: peer}).Echo())
	}
	replies, err := build()
	if want != 0 && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)) {
		peer.Index, want = 0, 0
		replies, err = build()
	}
	if err != nil {
		return 0, bridgeGone(host, p, err)
	}
	if p.HostIf != "" {
		if err := settlePort(host, p, replies); err != nil {
			return 0, err
		}
	}
	if want != 0 {
		return want, nil
	}
	l, err := in.LinkByName(p.IfName)
	return l.Index, err
}

// bridgeGone says so where the kernel's "invalid argument" means that somebody deleted
// the bridge.
func bridgeGone(host *rtnl.Conn, p Interface, err error) error {
	if p.Bridge != 0 && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV)) {
		if _, lerr := host.Do(rtnl.GetLinkIndex(p.Bridge)); errors.Is(lerr, unix.ENODEV) {
			return errclass.Internal("the network's bridge is gone: somebody deleted it; the next start of a container makes it again")
		}
	}
	return err
}

// settlePort finishes the host end: the bridge learns the container's address at once,
// and not from an older port that had it.
func settlePort(host *rtnl.Conn, p Interface, replies []rtnl.Reply) error {
	var index int
	for _, m := range replies {
		if l, ok := rtnl.ParseLink(m); ok && l.Name == p.HostIf {
			index = l.Index
		}
	}
	if index == 0 { // a kernel that does not echo (before 6.2)
		l, err := host.LinkByName(p.HostIf)
		if err != nil {
			return err
		}
		index = l.Index
	}
	if p.Bridge == 0 {
		return nil
	}
	reqs := []*rtnl.Request{rtnl.PinMAC(index, p.MAC)}
	// With br_netfilter a connection to a published port of the same network is turned
	// around inside the bridge: the port must take it back, and must not be cut off
	// from the others; bridged packets then meet our forward chain, which holds icc.
	if p.Filtered || p.Isolated {
		reqs = append(reqs, rtnl.SetPort(index, p.Isolated && !p.Filtered, p.Filtered))
	}
	_, err := host.Do(reqs...)
	return err
}

// BridgeFiltered tells whether bridged packets pass the IP hooks (br_netfilter).
func BridgeFiltered() bool {
	v, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && len(v) > 0 && v[0] == '1'
}

// configure sets what must be set before the interface is up, and returns the rest as
// one batch. It runs in the container's namespace.
func configure(p Interface, index int) ([]*rtnl.Request, error) {
	ipv6 := false
	for _, a := range p.Addrs {
		ipv6 = ipv6 || a.Addr().Is6()
	}
	if !ipv6 {
		// Without IPv6 on the network: no link-local address, no multicast chatter.
		if err := OptionalSysctl("net/ipv6/conf/"+p.IfName+"/disable_ipv6", "1"); err != nil {
			return nil, err
		}
	}
	if p.Announce {
		for _, key := range []string{"net/ipv4/conf/" + p.IfName + "/arp_notify", "net/ipv6/conf/" + p.IfName + "/ndisc_notify"} {
			if err := OptionalSysctl(key, "1"); err != nil {
				return nil, err
			}
		}
	}
	for _, kv := range p.Sysctls {
		if err := Sysctl(kv[0], kv[1]); err != nil {
			return nil, errclass.Invalid("%v", err)
		}
	}
	var reqs []*rtnl.Request
	for _, a := range p.Addrs {
		reqs = append(reqs, rtnl.AddAddr(index, a))
	}
	if ipv6 && p.HostIf != "" && len(p.MAC) == 6 {
		// The kernel would check it for duplicates: it is of no use for a second, and for ever
		// where the container's last run is not all gone yet (another one is in its namespace).
		reqs = append(reqs, rtnl.AddAddr(index, LinkLocal(p.MAC)))
	}
	reqs = append(reqs, rtnl.SetUp(index))
	for _, r := range p.Routes {
		reqs = append(reqs, rtnl.AddRoute(index, r.To, r.Via))
	}
	for _, gw := range []netip.Addr{p.GW4, p.GW6} {
		if gw.IsValid() {
			reqs = append(reqs, rtnl.AddRoute(index, netip.Prefix{}, gw))
		}
	}
	return reqs, nil
}

// ParseEndpointSysctls decodes the driver option of interface sysctls,
// "net.ipv4.conf.IFNAME.log_martians=1,…". Errors are of class Invalid.
func ParseEndpointSysctls(opt, ifName string) ([][2]string, error) {
	var out [][2]string
	for _, kv := range strings.Split(opt, ",") {
		if kv = strings.TrimSpace(kv); kv == "" {
			continue
		}
		k, v, ok := strings.Cut(kv, "=")
		parts := strings.Split(k, ".")
		if !ok || len(parts) != 5 || parts[0] != "net" || !strings.EqualFold(parts[3], "IFNAME") ||
			(parts[1] != "ipv4" && parts[1] != "ipv6" && parts[1] != "mpls") || (parts[2] != "conf" && parts[2] != "neigh") ||
			strings.ContainsAny(parts[4], "/") || parts[4] == "" || strings.ContainsAny(v, "\n") {
			return nil, errclass.Invalid("invalid interface sysctl %q: want net.<ipv4|ipv6>.<conf|neigh>.IFNAME.<name>=<value>", kv)
		}
		parts[3] = ifName
		out = append(out, [2]string{strings.Join(parts, "/"), v})
	}
	return out, nil
}
