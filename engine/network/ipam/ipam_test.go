package ipam

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
)

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

func TestSpaceHandsOutLowestFree(t *testing.T) {
	s, err := NewSpace(pfx("10.1.2.0/29"), netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Take(ip("10.1.2.1")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"} {
		t.Run(want, func(t *testing.T) {
			if a, err := s.Next(); err != nil || a != ip(want) {
				t.Fatalf("got %v %v, want %s", a, err, want)
			}
		})
	}
	if a, err := s.Next(); err == nil {
		t.Fatalf("got %v of a full space", a)
	}
	s.Release(ip("10.1.2.5"))
	s.Release(ip("10.1.2.3"))
	s.Release(ip("10.1.2.3"))
	for _, want := range []string{"10.1.2.3", "10.1.2.5"} {
		if a, err := s.Next(); err != nil || a != ip(want) {
			t.Fatalf("got %v %v, want %s", a, err, want)
		}
	}
	if err := s.Take(ip("10.1.2.4")); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("taken twice: %v", err)
	}
	if err := s.Take(ip("10.1.3.4")); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("outside: %v", err)
	}
}

func TestSpaceRange(t *testing.T) {
	s, err := NewSpace(pfx("172.28.0.0/16"), pfx("172.28.5.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := s.Next(); a != ip("172.28.5.0") {
		t.Errorf("got %v", a) // not the subnet's own address: a host may have it
	}
	if err := s.Take(ip("172.28.9.9")); err != nil {
		t.Error(err)
	}
	if _, err := NewSpace(pfx("172.28.0.0/16"), pfx("172.29.0.0/24")); err == nil {
		t.Error("range outside the subnet")
	}
}

func TestSpaceEdges(t *testing.T) {
	for _, c := range []struct {
		subnet string
		n      int
	}{{"10.0.0.0/30", 2}, {"10.0.0.0/31", 2}, {"10.0.0.1/32", 1}, {"fd00::/126", 3}, {"255.255.255.252/30", 2}, {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127", 2}} {
		t.Run(c.subnet, func(t *testing.T) {
			s, err := NewSpace(pfx(c.subnet), netip.Prefix{})
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for n < 10 {
				if _, err := s.Next(); err != nil {
					break
				}
				n++
			}
			if n != c.n {
				t.Errorf("%s: %d addresses, want %d", c.subnet, n, c.n)
			}
		})
	}
}

func TestNextSubnet(t *testing.T) {
	pools := []Pool{{pfx("10.0.0.0/22"), 24}, {pfx("192.168.0.0/24"), 26}}
	for _, c := range []struct {
		taken []netip.Prefix
		want  string
	}{
		{nil, "10.0.0.0/24"},
		{[]netip.Prefix{pfx("10.0.0.7/32")}, "10.0.1.0/24"},
		{[]netip.Prefix{pfx("10.0.0.0/23")}, "10.0.2.0/24"},
		{[]netip.Prefix{pfx("10.0.0.0/8")}, "192.168.0.0/26"},
		{[]netip.Prefix{pfx("10.0.0.0/8"), pfx("192.168.0.64/26"), pfx("192.168.0.0/26")}, "192.168.0.128/26"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if got, err := NewSearch(pools).Next(false, NewTaken(c.taken...)); err != nil || got != pfx(c.want) {
				t.Errorf("%v: %v %v, want %s", c.taken, got, err, c.want)
			}
		})
	}
	if _, err := NewSearch(pools).Next(false, NewTaken(pfx("0.0.0.0/0"))); err == nil {
		t.Error("subnet of nothing")
	}
	if _, err := NewSearch(pools).Next(true); err == nil {
		t.Error("IPv6 of IPv4 pools")
	}
}

// What becomes free is found again, the lowest first, also by who did not hear of it but
// asks when there is nothing else.
func TestSearchFindsWhatWasFreed(t *testing.T) {
	s, taken := NewSearch([]Pool{{pfx("10.0.0.0/22"), 24}}), NewTaken()
	next := func(want string) {
		t.Helper()
		got, err := s.Next(false, taken)
		if want == "" {
			if err == nil {
				t.Errorf("%v of nothing", got)
			}
			return
		}
		if err != nil || got != pfx(want) {
			t.Errorf("%v %v, want %s", got, err, want)
		}
		taken.Add(got)
	}
	for _, want := range []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"} {
		next(want)
	}
	taken.Remove(pfx("10.0.1.0/24"))
	s.Freed(pfx("10.0.1.0/24"))
	next("10.0.1.0/24")
	next("10.0.3.0/24")
	next("")
	taken.Remove(pfx("10.0.0.0/24"))
	next("10.0.0.0/24")
	next("")
	for _, p := range []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"} {
		taken.Remove(pfx(p))
	}
	s.Freed(pfx("10.0.0.0/8"))
	next("10.0.0.0/24")
}

func TestDefaultPoolsAreThousands(t *testing.T) {
	taken, search := NewTaken(), NewSearch(DefaultPools())
	for n := 0; ; n++ {
		p, err := search.Next(false, taken)
		if err != nil {
			if n < 3000 {
				t.Errorf("only %d networks", n)
			}
			return
		}
		if n == 0 && p != pfx("172.17.0.0/16") || n == 1 && p != pfx("172.18.0.0/16") {
			t.Errorf("network %d is %s", n, p)
		}
		taken.Add(p)
	}
}

func TestTakenForgets(t *testing.T) {
	taken := NewTaken(pfx("10.0.0.0/24"), pfx("10.0.0.0/24"))
	taken.Remove(pfx("10.0.0.0/24"))
	if _, hit := taken.Overlap(pfx("10.0.0.0/8")); !hit {
		t.Error("forgot the second")
	}
	taken.Remove(pfx("10.0.0.0/24"))
	if over, hit := taken.Overlap(pfx("10.0.0.0/8")); hit || len(taken.exact)+len(taken.inside) != 0 {
		t.Errorf("still %v", over)
	}
}

func TestMAC(t *testing.T) {
	if m := MAC(ip("172.17.0.2")); m != [6]byte{2, 0x42, 0xac, 0x11, 0, 2} {
		t.Errorf("%x", m)
	}
}

func TestFree(t *testing.T) {
	for _, c := range []struct {
		subnet, rng string
		take        int
		used        int
		free        uint64
	}{
		{"10.0.0.0/24", "", 1, 3, 253},
		{"10.0.0.0/24", "10.0.0.128/25", 2, 4, 125},
		{"10.0.0.0/31", "", 0, 0, 2},
		{"10.0.0.0/8", "", 0, 2, 1<<24 - 2},
		{"fd00::/64", "", 1, 2, 1<<64 - 2},
		{"fd00::/48", "fd00:0:0:1::/64", 0, 1, 1<<64 - 1},
		{"fd00::/48", "", 0, 1, 1<<64 - 1},
		{"fd00::/96", "", 0, 1, 1<<32 - 1},
	} {
		t.Run(c.subnet+" "+c.rng, func(t *testing.T) {
			var rng netip.Prefix
			if c.rng != "" {
				rng = pfx(c.rng)
			}
			s, err := NewSpace(pfx(c.subnet), rng)
			if err != nil {
				t.Fatal(err)
			}
			for range c.take {
				if _, err := s.Next(); err != nil {
					t.Fatal(err)
				}
			}
			if s.Used() != c.used || s.Free() != c.free {
				t.Errorf("%s %s: %d used, %d free; want %d, %d", c.subnet, c.rng, s.Used(), s.Free(), c.used, c.free)
			}
		})
	}
}
