package network

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

// plug is one interface to be made in a container's namespace.
type plug struct {
	ifName  string
	hostIf  string // veth's host end; empty for macvlan and ipvlan
	mac     net.HardwareAddr
	mtu     int
	addrs   []netip.Prefix
	gw4     netip.Addr // default routes, where this interface gives them
	gw6     netip.Addr
	routes  []netip.Prefix // straight onto the interface (macvlan without gateway)
	sysctls [][2]string    // path below /proc/sys, value: before the interface is up
	// link makes the interface with the given inside index and namespace.
	bridge   int  // index of the bridge to plug into
	isolated bool // icc off
	filtered bool // bridgeFiltered of the host
	child    func(rtnl.Peer) *rtnl.Request
}

// hostNS is the namespace the daemon works in: opened once, on the thread that makes
// the Service, because every goroutine that enters another one must find back.
type hostNS struct{ f *os.File }

func openHostNS() (hostNS, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return hostNS{}, fmt.Errorf("opening the network namespace: %w", err)
	}
	return hostNS{f}, nil
}

// inside runs do on a thread in another network namespace: a new one when ns is nil.
// A thread that cannot come back is not used again.
func (h hostNS) inside(ns *os.File, do func() error) error {
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
		if back := unix.Setns(int(h.f.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread()
		} // else the thread ends with this goroutine
		errc <- err
	}()
	return <-errc
}

// makeSandbox makes a network namespace with loopback and the given interfaces up.
// When it fails nothing is left: the namespace dies with its descriptor, and the
// interfaces with the namespace.
func makeSandbox(h hostNS, host *rtnl.Conn, plugs []plug) (ns *os.File, err error) {
	err = h.inside(nil, func() (err error) {
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
		return awaitCarrier(host, plugs)
	})
	if err != nil && ns != nil {
		ns.Close()
		ns = nil
	}
	return ns, err
}

// plugIn adds one interface to a running container's namespace.
func plugIn(h hostNS, host *rtnl.Conn, ns *os.File, p plug) error {
	return h.inside(ns, func() error {
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		if _, err := in.LinkByName(p.ifName); err == nil {
			return errclass.Conflict("interface %s exists in the container", p.ifName)
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
			err = awaitCarrier(host, []plug{p})
		}
		if err != nil {
			_, derr := in.Do(rtnl.DelLink(p.ifName))
			err = errors.Join(err, derr)
		}
		return err
	})
}

// awaitCarrier has the kernel finish what it does beside us when a link comes up: until
// then the bridge's port drops packets, and a first connection costs a second's
// retransmission. Asking for a link does that at once (rtnl_getlink, kernel 6.8).
func awaitCarrier(host *rtnl.Conn, plugs []plug) error {
	var reqs []*rtnl.Request
	for _, p := range plugs {
		if p.hostIf != "" {
			reqs = append(reqs, rtnl.GetLink(p.hostIf))
		}
		if p.bridge != 0 {
			reqs = append(reqs, rtnl.GetLinkIndex(p.bridge)) // its own carrier comes with the first port
		}
	}
	_, err := host.Do(reqs...)
	return err
}

// makeLink makes the interface, down, and returns its index inside. wish is the index
// to ask for: knowing it beforehand saves a question. It may be taken (kernels with
// fall-back tunnels in every namespace).
func makeLink(host, in *rtnl.Conn, p plug, wish int, ns *os.File) (int, error) {
	peer := rtnl.Peer{Name: p.ifName, Index: wish, MAC: p.mac, NS: int(ns.Fd())}
	make := func() ([]rtnl.Reply, error) {
		if p.child != nil {
			return host.Do(p.child(peer))
		}
		return host.Do(rtnl.AddVeth(rtnl.Veth{Name: p.hostIf, Master: p.bridge, MTU: p.mtu, Peer: peer}).Echo())
	}
	replies, err := make()
	if wish != 0 && (errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)) {
		peer.Index, wish = 0, 0
		replies, err = make()
	}
	if err != nil {
		return 0, err
	}
	if p.child == nil {
		if err := settlePort(host, p, replies); err != nil {
			return 0, err
		}
	}
	if wish != 0 {
		return wish, nil
	}
	l, err := in.LinkByName(p.ifName)
	return l.Index, err
}

// settlePort finishes the host end: the bridge learns the container's address at once,
// and not from an older port that had it.
func settlePort(host *rtnl.Conn, p plug, replies []rtnl.Reply) error {
	var index int
	for _, m := range replies {
		if l, ok := rtnl.ParseLink(m); ok && l.Name == p.hostIf {
			index = l.Index
		}
	}
	if index == 0 { // a kernel that does not echo (before 6.2)
		l, err := host.LinkByName(p.hostIf)
		if err != nil {
			return err
		}
		index = l.Index
	}
	if p.bridge == 0 {
		return nil
	}
	reqs := []*rtnl.Request{rtnl.PinMAC(index, p.mac)}
	// With br_netfilter a connection to a published port of the same network is turned
	// around inside the bridge: the port must take it back, and must not be cut off
	// from the others; bridged packets then meet our forward chain, which holds icc.
	if p.filtered || p.isolated {
		reqs = append(reqs, rtnl.SetPort(index, p.isolated && !p.filtered, p.filtered))
	}
	_, err := host.Do(reqs...)
	return err
}

// bridgeFiltered tells whether bridged packets pass the IP hooks (br_netfilter).
func bridgeFiltered() bool {
	v, err := os.ReadFile("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil && len(v) > 0 && v[0] == '1'
}

// configure sets what must be set before the interface is up, and returns the rest as
// one batch. It runs in the container's namespace.
func configure(p plug, index int) ([]*rtnl.Request, error) {
	ipv6 := false
	for _, a := range p.addrs {
		ipv6 = ipv6 || a.Addr().Is6()
	}
	if !ipv6 {
		// Without IPv6 on the network: no link-local address, no multicast chatter.
		if err := optionalSysctl("net/ipv6/conf/"+p.ifName+"/disable_ipv6", "1"); err != nil {
			return nil, err
		}
	}
	for _, kv := range p.sysctls {
		if err := sysctl(kv[0], kv[1]); err != nil {
			return nil, errclass.Invalid("%v", err)
		}
	}
	var reqs []*rtnl.Request
	for _, a := range p.addrs {
		reqs = append(reqs, rtnl.AddAddr(index, a))
	}
	reqs = append(reqs, rtnl.SetUp(index))
	for _, r := range p.routes {
		reqs = append(reqs, rtnl.AddRoute(index, r, netip.Addr{}))
	}
	for _, gw := range []netip.Addr{p.gw4, p.gw6} {
		if gw.IsValid() {
			reqs = append(reqs, rtnl.AddRoute(index, netip.Prefix{}, gw))
		}
	}
	return reqs, nil
}

// parseEndpointSysctls decodes the driver option of interface sysctls,
// "net.ipv4.conf.IFNAME.log_martians=1,…". Errors are of class Invalid.
func parseEndpointSysctls(opt, ifName string) ([][2]string, error) {
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
