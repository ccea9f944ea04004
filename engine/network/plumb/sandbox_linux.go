// Package plumb makes network namespaces, the interfaces in them, and bridges, with as
// few netlink messages as it can. It decides nothing.
package plumb

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"

	"github.com/gantry/gantry/engine/network/rtnl"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Plug is one interface to be made in a container's namespace.
type Plug struct {
	IfName string
	// HostIf is a veth's host end; empty for macvlan and ipvlan.
	HostIf string
	MAC    net.HardwareAddr
	MTU    int
	Addrs  []netip.Prefix
	// GW4 and GW6 are default routes, where this interface gives them.
	GW4, GW6 netip.Addr
	// Routes go straight onto the interface (macvlan without gateway).
	Routes []netip.Prefix
	// Sysctls are paths below /proc/sys and values, set before the interface is up.
	Sysctls [][2]string
	// Bridge is the index of the bridge to plug into; 0 is none.
	Bridge int
	// Isolated cuts the port off from the bridge's other isolated ports (icc off).
	Isolated bool
	// Filtered is what BridgeFiltered says in the host's namespace.
	Filtered bool
	// Child makes the interface instead of a veth pair.
	Child func(rtnl.Peer) *rtnl.Request
}

// HostNS is the namespace the daemon works in: opened once, on a thread that is in it,
// because every goroutine that enters another one must find back.
type HostNS struct{ F *os.File }

// OpenHostNS opens the calling thread's network namespace. Close it.
func OpenHostNS() (HostNS, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return HostNS{}, fmt.Errorf("opening the network namespace: %w", err)
	}
	return HostNS{f}, nil
}

// Close closes the descriptor.
func (h HostNS) Close() error { return h.F.Close() }

// Inside runs do on a thread in another network namespace: a new one when ns is nil.
// A thread that cannot come back is not used again.
func (h HostNS) Inside(ns *os.File, do func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
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

// MakeSandbox makes a network namespace with loopback and the given interfaces up.
// When it fails nothing is left: the namespace dies with its descriptor, and the
// interfaces with the namespace. then is run in the namespace when it is done.
func MakeSandbox(h HostNS, host *rtnl.Conn, plugs []Plug, then ...func() error) (ns *os.File, err error) {
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
		for i, p := range plugs {
			index, err := makeLink(host, in, p, i+2, ns)
			if err != nil {
				return err
			}
			reqs, err := configure(p, index)
			if err != nil {
				return err
			}
			up = append(up, reqs...)
		}
		if _, err = in.Do(up...); err != nil {
			return err
		}
		for _, do := range then {
			if err := do(); err != nil {
				return err
			}
		}
		return awaitCarrier(host, plugs)
	})
	if err != nil && ns != nil {
		ns.Close()
		ns = nil
	}
	return ns, err
}

// PlugIn adds one interface to a running container's namespace.
func PlugIn(h HostNS, host *rtnl.Conn, ns *os.File, p Plug) error {
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
			err = awaitCarrier(host, []Plug{p})
		}
		if err != nil {
			_, derr := in.Do(rtnl.DelLink(p.IfName))
			err = errors.Join(err, derr)
		}
		return err
	})
}

// awaitCarrier has the kernel finish what it does beside us when a link comes up: until
// then the bridge's port drops packets, and a first connection costs a second's
// retransmission. Asking for a link does that at once (rtnl_getlink, kernel 6.8).
func awaitCarrier(host *rtnl.Conn, plugs []Plug) error {
	var reqs []*rtnl.Request
	for _, p := range plugs {
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

// makeLink makes the interface, down, and returns its index inside. wish is the index
// to ask for: knowing it beforehand saves a question. It may be taken (kernels with
// fall-back tunnels in every namespace).
func makeLink(host, in *rtnl.Conn, p Plug, wish int, ns *os.File) (int, error) {
	peer := rtnl.Peer{Name: p.IfName, Index: wish, MAC: p.MAC, NS: int(ns.Fd())}
	make := func() ([]rtnl.Reply, error) {
		if p.Child != nil {
			return host.Do(p.Child(peer))
		}
		return host.Do(rtnl.AddVeth(rtnl.Veth{Name: p.HostIf, Master: p.Bridge, MTU: p.MTU, Peer: peer}).Echo())
	}
	replies, err := make()
	if wish != 0 && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)) {
		peer.Index, wish = 0, 0
		replies, err = make()
	}
	if err != nil {
		return 0, err
	}
	if p.Child == nil {
		if err := settlePort(host, p, replies); err != nil {
			return 0, err
		}
	}
	if wish != 0 {
		return wish, nil
	}
	l, err := in.LinkByName(p.IfName)
	return l.Index, err
}

// settlePort finishes the host end: the bridge learns the container's address at once,
// and not from an older port that had it.
func settlePort(host *rtnl.Conn, p Plug, replies []rtnl.Reply) error {
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
func configure(p Plug, index int) ([]*rtnl.Request, error) {
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
	for _, kv := range p.Sysctls {
		if err := Sysctl(kv[0], kv[1]); err != nil {
			return nil, errclass.Invalid("%v", err)
		}
	}
	var reqs []*rtnl.Request
	for _, a := range p.Addrs {
		reqs = append(reqs, rtnl.AddAddr(index, a))
	}
	reqs = append(reqs, rtnl.SetUp(index))
	for _, r := range p.Routes {
		reqs = append(reqs, rtnl.AddRoute(index, r, netip.Addr{}))
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
		if !ok || len(parts) != 5 || parts[0] != "net" || parts[3] != "IFNAME" ||
			(parts[1] != "ipv4" && parts[1] != "ipv6" && parts[1] != "mpls") || (parts[2] != "conf" && parts[2] != "neigh") ||
			strings.ContainsAny(parts[4], "/") || parts[4] == "" || strings.ContainsAny(v, "\n") {
			return nil, errclass.Invalid("invalid interface sysctl %q: want net.<ipv4|ipv6>.<conf|neigh>.IFNAME.<name>=<value>", kv)
		}
		parts[3] = ifName
		out = append(out, [2]string{strings.Join(parts, "/"), v})
	}
	return out, nil
}
