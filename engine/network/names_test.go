package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/event"
	"github.com/miekg/dns"
	"github.com/moby/moby/api/types/network"
)

// dialNames connects to the resolver from a container.
func dialNames(t testing.TB, h netns.Host, ns *os.File, netw string) *dns.Conn {
	t.Helper()
	var c net.Conn
	err := h.Inside(ns, func() (err error) {
		if netw == "tcp" {
			c, err = dialHere("127.0.0.11:53", 5*time.Second)
			return err
		}
		c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.11:53")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return &dns.Conn{Conn: c}
}

// names asks the resolver of a container and returns the answer in short.
func names(t testing.TB, b *box, netw, name string, typ uint16) string {
	t.Helper()
	c := dialNames(t, b.s.host.NS(), b.NetNS, netw)
	if err := c.WriteMsg(new(dns.Msg).SetQuestion(name, typ)); err != nil {
		t.Fatal(err)
	}
	return readNames(t, c)
}

func readNames(t testing.TB, c *dns.Conn) string {
	t.Helper()
	m, err := c.ReadMsg()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return strings.Join(append([]string{dns.RcodeToString[m.Rcode]}, out...), " ")
}

func expectNames(t testing.TB, b *box, name string, typ uint16, want string) {
	t.Helper()
	for _, netw := range []string{"udp", "tcp"} {
		if got := names(t, b, netw, name, typ); got != want {
			t.Errorf("%s %s %s: %q, want %q", netw, name, dns.TypeToString[typ], got, want)
		}
	}
}

func aliased(r SandboxRequest, netw string, aliases ...string) SandboxRequest {
	r.Endpoints = map[string]*network.EndpointSettings{netw: {Aliases: aliases}}
	return r
}

func TestNames(t *testing.T) {
	s, _ := newService(t, nil)
	yes := true
	create(t, s, network.CreateRequest{Name: "one", EnableIPv6: &yes})
	create(t, s, network.CreateRequest{Name: "two"})
	create(t, s, network.CreateRequest{Name: "inside", Internal: true})
	a := run(t, s, aliased(request("a"), "one", "www"))
	b := run(t, s, aliased(request("b"), "one", "www"))
	linked := on(request("c"), "one", "two")
	linked.Endpoints["one"].Links = []string{"a:database"}
	c := run(t, s, linked)
	d := run(t, s, on(request("d"), "two"))
	i := run(t, s, on(request("i"), "inside"))
	on := func(b *box, n string) string { return b.Endpoints[n].IPAddress.String() }
	// A server of the container's own has port 53 for itself.
	err := s.host.NS().Inside(a.NetNS, func() error {
		u, err := net.ListenPacket("udp4", ":53")
		if err != nil {
			return err
		}
		t.Cleanup(func() { u.Close() })
		l, err := net.Listen("tcp4", ":53")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	expectNames(t, a, "b.", dns.TypeA, "NOERROR "+on(b, "one"))
	expectNames(t, a, "b.", dns.TypeAAAA, "NOERROR "+b.Endpoints["one"].GlobalIPv6Address.String())
	expectNames(t, a, "b.one.", dns.TypeA, "NOERROR "+on(b, "one"))
	expectNames(t, a, "www.", dns.TypeA, "NOERROR "+on(a, "one")+" "+on(b, "one"))
	expectNames(t, a, "database.", dns.TypeA, "SERVFAIL") // the link is c's; nobody answers outside
	expectNames(t, c, "database.", dns.TypeA, "NOERROR "+on(a, "one"))
	expectNames(t, c, "d.", dns.TypeA, "NOERROR "+on(d, "two"))
	expectNames(t, c, "d.", dns.TypeAAAA, "NOERROR")
	expectNames(t, i, "a.", dns.TypeA, "SERVFAIL")
	rev, _ := dns.ReverseAddr(on(b, "one"))
	expectNames(t, a, rev, dns.TypePTR, "NOERROR b.one.")
	if got := string(a.ResolvConf); !strings.Contains(got, "\nnameserver 127.0.0.11\nsearch example.org\noptions ndots:0\n") || strings.Contains(got, "nameserver 192.0.2.53") {
		t.Error(got)
	}
	b.stop()
	expectNames(t, a, "www.", dns.TypeA, "NOERROR "+on(a, "one"))

	// Connecting and disconnecting while it runs.
	ctx := context.Background()
	r := request("d")
	r.Endpoints = map[string]*network.EndpointSettings{"one": {Aliases: []string{"late"}}}
	if _, err := s.Connect(ctx, d.NetNS, r); err != nil {
		t.Fatal(err)
	}
	expectNames(t, d, "a.", dns.TypeA, "NOERROR "+on(a, "one"))
	if got := names(t, a, "udp", "late.", dns.TypeA); !strings.HasPrefix(got, "NOERROR 172.18.0.") {
		t.Error(got)
	}
	if _, err := s.Disconnect(ctx, d.NetNS, d.id, "one", nil); err != nil {
		t.Fatal(err)
	}
	expectNames(t, a, "late.", dns.TypeA, "SERVFAIL")

	// From the default bridge onto a network with names.
	e := run(t, s, request("e"))
	r = request("e")
	r.Endpoints = map[string]*network.EndpointSettings{"one": {}}
	got, err := s.Connect(ctx, e.NetNS, r)
	if err != nil {
		t.Fatal(err)
	}
	if got.Record.DNS == nil || !strings.Contains(string(got.ResolvConf), "nameserver 127.0.0.11") {
		t.Errorf("%+v %s", got.Record, got.ResolvConf)
	}
	expectNames(t, e, "a.", dns.TypeA, "NOERROR "+on(a, "one"))
}

// What the host's resolv.conf names is asked, and what it names later.
func TestNamesOutside(t *testing.T) {
	var file string
	s, _ := newService(t, func(c *Config) { file = c.ResolvConf })
	for _, ip := range []string{"127.0.0.53", "127.0.0.54"} {
		serveNames(t, s, s.host.Netns(), ip, ip)
	}
	write := func(ip string) {
		if err := os.WriteFile(file, []byte("nameserver "+ip+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("127.0.0.53")
	create(t, s, network.CreateRequest{Name: "one"})
	create(t, s, network.CreateRequest{Name: "inside", Internal: true})
	a := run(t, s, on(request("a"), "one"))
	i := run(t, s, on(request("i"), "inside"))
	ib := run(t, s, on(request("both"), "inside", "one"))
	for b, want := range map[*box]string{a: "NOERROR 127.0.0.53", i: "SERVFAIL", ib: "NOERROR 127.0.0.53"} {
		if got := names(t, b, "udp", "x.example.", dns.TypeA); got != want {
			t.Errorf("%s: %q, want %q", b.Record.Endpoints[0].Name, got, want)
		}
	}
	write("127.0.0.54")
	waitFor(t, func() bool { return names(t, a, "udp", "x.example.", dns.TypeA) == "NOERROR 127.0.0.54" })
}

// A container's own servers are asked from where it is: its loopback, not the host's, and
// nobody else's answers are its own.
func TestNamesInside(t *testing.T) {
	s, _ := newService(t, nil)
	serveNames(t, s, s.host.Netns(), "127.0.0.54", "192.0.2.99")
	create(t, s, network.CreateRequest{Name: "one"})
	for _, name := range []string{"a", "b"} {
		r := on(request(name), "one")
		r.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.54")}
		b := run(t, s, r)
		want := "192.0.2." + map[string]string{"a": "1", "b": "2"}[name]
		serveNames(t, s, b.NetNS, "127.0.0.54", want)
		for _, netw := range []string{"udp", "tcp"} {
			if got := names(t, b, netw, "x.example.", dns.TypeA); got != "NOERROR "+want {
				t.Errorf("%s by %s: %q", name, netw, got)
			}
		}
	}
	r := on(request("none"), "one")
	r.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.54")}
	expectNames(t, run(t, s, r), "x.example.", dns.TypeA, "SERVFAIL")
	before := openFiles(t)
	b := run(t, s, on(request("later"), "one"))
	b.stop()
	waitFor(t, func() bool { return openFiles(t) <= before })
}

// serveNames is a DNS server at an address of a namespace that answers with one address,
// for a minute.
func serveNames(t *testing.T, s *Service, ns *os.File, at, answer string) {
	t.Helper()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		rr, _ := dns.NewRR(fmt.Sprintf("%s %d IN A %s", m.Question[0].Name, map[bool]int{true: 60}[ns != s.host.Netns()], answer))
		r.Answer = append(r.Answer, rr)
		w.WriteMsg(r)
	})
	var pc net.PacketConn
	var l net.Listener
	err := s.host.NS().Inside(ns, func() (err error) {
		if pc, err = net.ListenPacket("udp", at+":53"); err == nil {
			l, err = net.Listen("tcp", at+":53")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		go srv.ActivateAndServe()
		t.Cleanup(func() { srv.Shutdown() })
	}
}

// Queries made while no daemon lives wait for the next one.
func TestNamesOutliveTheDaemon(t *testing.T) {
	keep := &memFDStore{}
	var cfg Config
	s, _ := newService(t, func(c *Config) { c.FDStore = keep; cfg = *c })
	create(t, s, network.CreateRequest{Name: "one"})
	var recs []Record
	acquire := func(r SandboxRequest) *os.File {
		sb, err := s.Acquire(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sb.NetNS.Close() })
		data, _ := json.Marshal(sb.Record)
		var back Record
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, back)
		return sb.NetNS
	}
	a, b := acquire(aliased(request("a"), "one", "www")), acquire(aliased(request("b"), "one", "www"))
	h, err := netns.OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	s.Close() // sockets of this process are closed, as at kill -9
	udp, tcp := dialNames(t, h, a, "udp"), dialNames(t, h, b, "tcp")
	for _, c := range []*dns.Conn{udp, tcp} {
		if err := c.WriteMsg(new(dns.Msg).SetQuestion("www.", dns.TypeA)); err != nil {
			t.Fatal(err)
		}
	}
	next, err := New(WithDrivers(cfg, nil), event.New())
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	// b's sockets are lost, too: new ones are made, only what waited there is lost.
	u := "dns/" + recs[1].ContainerID + "/udp"
	keep.Drop(u)
	recs[1].NetNS = func() (*os.File, error) { return dupFile(b) }
	if err := next.Restore(context.Background(), recs); err != nil {
		t.Fatal(err)
	}
	if got := readNames(t, udp); got != "NOERROR 172.18.0.2 172.18.0.3" {
		t.Error(got)
	}
	bb := &box{&Sandbox{NetNS: b}, recs[1].ContainerID, next}
	expectNames(t, bb, "a.", dns.TypeA, "NOERROR 172.18.0.2")
	for _, r := range recs {
		next.Release(context.Background(), r.ContainerID)
	}
	keep.mu.Lock()
	defer keep.mu.Unlock()
	if len(keep.m) != 0 {
		t.Errorf("still kept: %v", keep.m)
	}
}
