package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// reportCPU adds the process's CPU time per operation: what a start costs the machine,
// also where it waits.
func reportCPU(b *testing.B, f func()) {
	cpu := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := cpu()
	f()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

// BenchmarkAcquireRelease is one container's network, made and given back; the
// namespace dies beside it.
func BenchmarkAcquireRelease(b *testing.B) {
	for name, ports := range map[string][]string{"plain": nil, "port": {"8080>80/tcp"}} {
		b.Run(name, func(b *testing.B) {
			s, _ := newService(b, nil)
			r := request("bench")
			r.Ports = portMapOf(ports...)
			reportCPU(b, func() {
				for b.Loop() {
					sb, err := s.Acquire(context.Background(), r)
					if err != nil {
						b.Fatal(err)
					}
					sb.NetNS.Close()
					s.Release(context.Background(), r.ContainerID)
				}
			})
		})
	}
}

// BenchmarkVethFloor is the same by hand: a namespace, a veth pair on a bridge, an
// address and a route; what no engine can save.
func BenchmarkVethFloor(b *testing.B) {
	needNetns(b)
	nl, err := rtnl.Dial()
	if err != nil {
		b.Fatal(err)
	}
	defer nl.Close()
	defer cleanHost(b)
	index, err := bridge.Ensure(onHost(b), "br-floor", 1500, false, []netip.Prefix{netip.MustParsePrefix("172.31.0.1/16")}, true)
	if err != nil {
		b.Fatal(err)
	}
	h, err := netns.OpenHost()
	if err != nil {
		b.Fatal(err)
	}
	defer h.F.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	n := 0
	reportCPU(b, func() {
		for b.Loop() {
			n++
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				b.Fatal(err)
			}
			ns, _ := os.Open("/proc/thread-self/ns/net")
			in, _ := rtnl.Dial()
			_, err := nl.Do(rtnl.AddVeth(rtnl.Veth{
				Name: fmt.Sprintf("floor%d", n), Master: index, MTU: 1500,
				Peer: rtnl.Peer{Name: "eth0", Index: 2, MAC: net.HardwareAddr{2, 0x42, 172, 31, 0, 2}, NS: int(ns.Fd())},
			}))
			if err == nil {
				_, err = in.Do(rtnl.SetUp(1), rtnl.AddAddr(2, netip.MustParsePrefix("172.31.0.2/16")), rtnl.SetUp(2),
					rtnl.AddRoute(2, netip.Prefix{}, netip.MustParseAddr("172.31.0.1")))
			}
			if err != nil {
				b.Fatal(err)
			}
			in.Close()
			ns.Close()
			if err := unix.Setns(int(h.F.Fd()), unix.CLONE_NEWNET); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAcquireNamed is a container on a user-defined network: with a resolver.
func BenchmarkAcquireNamed(b *testing.B) {
	s, _ := newService(b, nil)
	create(b, s, network.CreateRequest{Name: "one"})
	r := on(request("bench"), "one")
	reportCPU(b, func() {
		for b.Loop() {
			sb, err := s.Acquire(context.Background(), r)
			if err != nil {
				b.Fatal(err)
			}
			sb.NetNS.Close()
			s.Release(context.Background(), r.ContainerID)
		}
	})
}
