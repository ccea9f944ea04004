package network

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/netns"
	"golang.org/x/sys/unix"
)

// lane is a pair of sockets, one that only sends and one that only receives.
type lane struct {
	send  int
	got   atomic.Int64 // bytes, or datagrams
	chunk []byte
}

// slice sends for a while and returns how much arrived, and the process's CPU time.
func (l *lane) slice(b *testing.B, d time.Duration) (got int64, cpu time.Duration) {
	b.Helper()
	var before, after unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &before)
	was := l.got.Load()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for range 32 {
			if _, err := unix.Write(l.send, l.chunk); err != nil && err != unix.ENOBUFS {
				b.Fatal(err)
			}
		}
	}
	time.Sleep(5 * time.Millisecond) // what is on its way
	unix.Getrusage(unix.RUSAGE_SELF, &after)
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	return l.got.Load() - was, time.Duration(used)
}

// newLane makes a connection of kind "tcp" or "udp" from one namespace to another; size is
// of one write.
func newLane(b *testing.B, h netns.Host, kind string, server, client *os.File, listen, dial string, size int) *lane {
	b.Helper()
	l := &lane{chunk: make([]byte, size)}
	sock := func(ns *os.File, do func(fd int) error) int {
		fd := -1
		err := h.Inside(ns, func() (err error) {
			typ := unix.SOCK_STREAM
			if kind == "udp" {
				typ = unix.SOCK_DGRAM
			}
			if fd, err = unix.Socket(unix.AF_INET, typ|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
			return do(fd)
		})
		if err != nil {
			b.Fatal(kind, listen, dial, err)
		}
		b.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	at := func(s string) unix.Sockaddr {
		ap := netip.MustParseAddrPort(s)
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	in := sock(server, func(fd int) error {
		if err := unix.Bind(fd, at(listen)); err != nil || kind == "udp" {
			return err
		}
		return unix.Listen(fd, 1)
	})
	l.send = sock(client, func(fd int) error { return unix.Connect(fd, at(dial)) })
	if kind == "tcp" {
		c, _, err := unix.Accept4(in, unix.SOCK_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		in = c
		b.Cleanup(func() { unix.Shutdown(c, unix.SHUT_RDWR); unix.Close(c) })
	}
	tv := unix.Timeval{Usec: 200000}
	unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 256<<10)
		for {
			n, err := unix.Read(in, buf)
			select {
			case <-stop:
				return
			default:
			}
			if err == nil && kind == "udp" {
				l.got.Add(1)
			} else if err == nil {
				l.got.Add(int64(n))
			}
		}
	}()
	b.Cleanup(func() { close(stop); <-done })
	return l
}

// handHost is byHand in a host's namespace of its own, which has no rules at all.
func handHost(b *testing.B) (host, one, two *os.File, h netns.Host) {
	b.Helper()
	back, err := netns.OpenHost()
	if err != nil {
		b.Fatal(err)
	}
	defer back.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	h, one, two = byHand(b)
	if err := unix.Setns(int(back.F.Fd()), unix.CLONE_NEWNET); err != nil {
		b.Fatal(err)
	}
	return h.F, one, two, back
}

// translateByHand sends the bridge's port to the first namespace, by one rule.
func translateByHand(b *testing.B, h netns.Host, host *os.File, kind string) {
	b.Helper()
	err := h.Inside(host, func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader("table ip hand {\n chain out {\n type nat hook output priority -100\n ip daddr 10.88.0.1 " +
			kind + " dport 5001 dnat to 10.88.0.2:5001\n }\n }\n")
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	if err != nil {
		b.Skip(err)
	}
}

// BenchmarkPathRatio sends as much as it can, in turns over a path of ours and over the
// same made by hand, and reports the medians of what arrived and of the CPU it took, as
// ratio to the path by hand (rate: higher is better, cpu: lower).
func BenchmarkPathRatio(b *testing.B) {
	type path struct {
		kind string
		size int
		from string // "container", "host", or "translated": from the host, by hand with a DNAT rule too
	}
	for _, p := range []path{
		{"tcp", 128 << 10, "container"},
		{"tcp", 128 << 10, "host"},
		{"udp", 64, "container"},
		{"tcp", 128 << 10, "translated"},
		{"udp", 64, "container"},
		{"udp", 64, "host"},
		{"udp", 64, "translated"},
	} {
		b.Run(fmt.Sprintf("%s-%d/%s", p.kind, p.size, p.from), func(b *testing.B) {
			hh, h1, h2, _ := handHost(b)
			s, one, two := byUs(b)
			hc, oc, hdial, dial := h2, two.NetNS, "10.88.0.2:5001", one.ip().String()+":5001"
			if p.from != "container" {
				hc, oc, dial = hh, s.host.Netns(), "172.18.0.1:5001"
			}
			if p.from == "translated" {
				hdial = "10.88.0.1:5001"
				translateByHand(b, s.host.NS(), hh, p.kind)
			}
			hand := newLane(b, s.host.NS(), p.kind, h1, hc, "10.88.0.2:5001", hdial, p.size)
			ours := newLane(b, s.host.NS(), p.kind, one.NetNS, oc, one.ip().String()+":5001", dial, p.size)
			var rate, cpu, abs []float64
			for b.Loop() {
				for i := range 40 {
					first, second := hand, ours
					if i%2 == 1 {
						first, second = ours, hand
					}
					g1, c1 := first.slice(b, 50*time.Millisecond)
					g2, c2 := second.slice(b, 50*time.Millisecond)
					if i%2 == 1 {
						g1, c1, g2, c2 = g2, c2, g1, c1
					}
					rate = append(rate, float64(g2)/float64(g1))
					cpu = append(cpu, float64(c2)/float64(g2)/(float64(c1)/float64(g1)))
					abs = append(abs, float64(g1)*20)
				}
			}
			mid := func(f []float64) float64 { slices.Sort(f); return f[len(f)/2] }
			b.ReportMetric(mid(rate), "rate-ratio")
			b.ReportMetric(mid(cpu), "cpu-ratio")
			b.ReportMetric(mid(abs), "by-hand/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
