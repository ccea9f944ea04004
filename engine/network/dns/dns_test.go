package dns

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

func addr(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func testView() *View {
	front, back := NewZone("front"), NewZone("Back")
	front.Set("e1", []string{"web", "www", "abcdef012345"}, addr("10.0.0.2"), addr("fd00::2"))
	front.Set("e2", []string{"web2", "www"}, addr("10.0.0.3"), netip.Addr{})
	back.Set("e3", []string{"db", "shared"}, addr("10.1.0.2"), netip.Addr{})
	back.Set("e4", []string{"web"}, addr("10.1.0.3"), netip.Addr{})
	back.Set("e5", []string{"my.app"}, addr("10.1.0.4"), netip.Addr{})
	back.Set("e6", []string{"only6"}, netip.Addr{}, addr("fd01::6"))
	return &View{Networks: []NetworkView{{Zone: front}, {Zone: back, Links: map[string]string{"database": "db"}}}}
}

// askLocal asks as a client of the reference library does.
func askLocal(t *testing.T, v *View, m *mdns.Msg, udp bool) (*mdns.Msg, verdict) {
	t.Helper()
	p, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var q question
	var name [maxName]byte
	out, what := v.local(p, nil, udp, &q, &name)
	if what != done {
		return nil, what
	}
	var r mdns.Msg
	if err := r.Unpack(out); err != nil {
		t.Fatalf("%v: %x", err, out)
	}
	if r.Id != m.Id || !r.Response || len(r.Question) != 1 || r.Question[0] != m.Question[0] {
		t.Errorf("answer %v to %v", r, m)
	}
	return &r, what
}

func rrText(r *mdns.Msg) string {
	if r == nil {
		return "outside"
	}
	var out []string
	for _, a := range r.Answer {
		f := strings.Fields(a.String())
		out = append(out, f[len(f)-1])
	}
	slices.Sort(out)
	return mdns.RcodeToString[r.Rcode] + " " + strings.Join(out, " ")
}

func TestLocal(t *testing.T) {
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"web.", mdns.TypeA, "NOERROR 10.0.0.2"},
		{"WEB.", mdns.TypeA, "NOERROR 10.0.0.2"},
		{"web.", mdns.TypeAAAA, "NOERROR fd00::2"},
		{"web2.", mdns.TypeAAAA, "NOERROR "},
		{"only6.", mdns.TypeA, "NOERROR "},
		{"only6.", mdns.TypeAAAA, "NOERROR fd01::6"},
		{"web.", mdns.TypeANY, "NOERROR 10.0.0.2 fd00::2"},
		{"web.", mdns.TypeMX, "NOERROR "},
		{"abcdef012345.", mdns.TypeA, "NOERROR 10.0.0.2"},
		{"www.", mdns.TypeA, "NOERROR 10.0.0.2 10.0.0.3"},
		{"web.back.", mdns.TypeA, "NOERROR 10.1.0.3"},
		{"web.front.", mdns.TypeA, "NOERROR 10.0.0.2"},
		{"db.front.", mdns.TypeA, "outside"},
		{"my.app.", mdns.TypeA, "NOERROR 10.1.0.4"},
		{"my.app.back.", mdns.TypeA, "NOERROR 10.1.0.4"},
		{"database.", mdns.TypeA, "NOERROR 10.1.0.2"},
		{"database.back.", mdns.TypeA, "NOERROR 10.1.0.2"},
		{"2.0.0.10.in-addr.arpa.", mdns.TypePTR, "NOERROR web.front."},
		{"4.0.1.10.in-addr.arpa.", mdns.TypePTR, "NOERROR my.app.back."},
		{"9.9.9.10.in-addr.arpa.", mdns.TypePTR, "outside"},
		{"nobody.", mdns.TypeA, "outside"},
		{"example.org.", mdns.TypeA, "outside"},
		{`we\.b.`, mdns.TypeA, "outside"},
		{".", mdns.TypeNS, "outside"},
		{"..back.", mdns.TypeA, "outside"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "..back." {
				return // cannot be packed
			}
			v := testView()
			v.Forward = true
			m := new(mdns.Msg).SetQuestion(c.name, c.typ)
			r, _ := askLocal(t, v, m, true)
			if got := rrText(r); got != c.want {
				t.Errorf("%s %s: %q, want %q", c.name, mdns.TypeToString[c.typ], got, c.want)
			}
			if r != nil && (!r.RecursionAvailable || len(r.Extra) != 0) {
				t.Errorf("%s: %v", c.name, r)
			}
			v.Forward = false
			if r, _ := askLocal(t, v, m, true); c.want == "outside" && rrText(r) != "SERVFAIL " {
				t.Errorf("%s without a way out: %s", c.name, rrText(r))
			}
		})
	}
	six, _ := mdns.ReverseAddr("fd00::2")
	if r, _ := askLocal(t, testView(), new(mdns.Msg).SetQuestion(six, mdns.TypePTR), true); rrText(r) != "NOERROR web.front." {
		t.Error(rrText(r))
	}
	v := testView()
	v.Forward, v.Ndots = true, true
	if r, _ := askLocal(t, v, new(mdns.Msg).SetQuestion("nobody.", mdns.TypeA), true); rrText(r) != "NOERROR " {
		t.Error(rrText(r))
	}
}

func TestManyAddressesAndTruncation(t *testing.T) {
	z := NewZone("n")
	for i := range 100 {
		z.Set(fmt.Sprint(i), []string{fmt.Sprint("c", i), "all"}, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), netip.Addr{})
	}
	v := &View{Networks: []NetworkView{{Zone: z}}}
	m := new(mdns.Msg).SetQuestion("all.", mdns.TypeA)
	r, _ := askLocal(t, v, m, true)
	r.Compress = true
	p, _ := r.Pack()
	if !r.Truncated || len(p) > 512 || len(r.Answer) < 20 {
		t.Errorf("truncated %v, %d answers, %d bytes", r.Truncated, len(r.Answer), len(p))
	}
	if r, _ = askLocal(t, v, m, false); r.Truncated || len(r.Answer) != 100 {
		t.Errorf("over TCP: %v, %d answers", r.Truncated, len(r.Answer))
	}
	seen := map[string]bool{}
	for _, a := range r.Answer {
		seen[a.String()] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different", len(seen))
	}
	m.SetEdns0(4096, false)
	if r, _ = askLocal(t, v, m, true); r.Truncated || len(r.Answer) != 100 || r.IsEdns0() == nil {
		t.Errorf("with EDNS: %v, %d answers", r.Truncated, len(r.Answer))
	}
	firsts := map[string]bool{}
	for range 200 {
		r, _ := askLocal(t, v, m, true)
		firsts[r.Answer[0].String()] = true
	}
	if len(firsts) < 40 {
		t.Errorf("only %d of 100 came first in 200 answers", len(firsts))
	}
	for i := range 100 {
		z.Remove(fmt.Sprint(i))
	}
	if len(z.names)+len(z.addrs)+len(z.members) != 0 {
		t.Errorf("left: %v %v %v", z.names, z.addrs, z.members)
	}
}

func TestBadQueries(t *testing.T) {
	good, _ := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	edit := func(f func(p []byte) []byte) []byte { return f(slices.Clone(good)) }
	for name, c := range map[string]struct {
		p     []byte
		what  verdict
		rcode int
	}{
		"empty":         {nil, drop, 0},
		"short":         {good[:11], drop, 0},
		"an answer":     {edit(func(p []byte) []byte { p[2] |= 0x80; return p }), drop, 0},
		"update":        {edit(func(p []byte) []byte { p[2] |= 5 << 3; return p }), done, rcodeNotImp},
		"no question":   {edit(func(p []byte) []byte { p[5] = 0; return p }), done, rcodeFormErr},
		"two questions": {edit(func(p []byte) []byte { p[5] = 2; return p }), done, rcodeFormErr},
		"cut":           {good[:15], done, rcodeFormErr},
		"long label":    {edit(func(p []byte) []byte { p[12] = 200; return p }), done, rcodeFormErr},
		"missing OPT":   {edit(func(p []byte) []byte { p[11] = 1; return p }), done, rcodeFormErr},
	} {
		t.Run(name, func(t *testing.T) {
			var q question
			var nm [maxName]byte
			out, what := testView().local(c.p, nil, true, &q, &nm)
			if what != c.what || what == done && int(out[3]&0xf) != c.rcode {
				t.Errorf("%s: %v %x", name, what, out)
			}
		})
	}
}

// upstream is a server that answers with do.
func upstream(t *testing.T, at string, do func(w mdns.ResponseWriter, m *mdns.Msg)) {
	t.Helper()
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*mdns.Server{{PacketConn: pc, Handler: mdns.HandlerFunc(do)}, {Listener: l, Handler: mdns.HandlerFunc(do)}} {
		go s.ActivateAndServe()
		t.Cleanup(func() { s.Shutdown() })
	}
}

func answerWith(ip string, asked *atomic.Int32) func(mdns.ResponseWriter, *mdns.Msg) {
	return func(w mdns.ResponseWriter, m *mdns.Msg) {
		asked.Add(1)
		r := new(mdns.Msg).SetReply(m)
		rr, _ := mdns.NewRR(m.Question[0].Name + " 30 IN A " + ip)
		r.Answer = append(r.Answer, rr)
		if m.Question[0].Name == "big." {
			for range 100 {
				r.Answer = append(r.Answer, rr)
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				r.Truncate(512)
			}
		}
		w.WriteMsg(r)
	}
}

// resolver serves a view on loopback, as in a container.
func resolver(t testing.TB, v *View, f *Forwarder) (*Resolver, string) {
	t.Helper()
	uc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer uc.Close()
	l, err := net.Listen("tcp", uc.LocalAddr().String())
	if err != nil {
		t.Skip(err) // somebody else has the port
	}
	defer l.Close()
	var s Sockets
	s.UDP, _ = uc.(*net.UDPConn).File()
	s.TCP, _ = l.(*net.TCPListener).File()
	r, err := Serve(s, v, f)
	s.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r, uc.LocalAddr().String()
}

const testPort = 15353

func query(t *testing.T, network, at, name string, typ uint16) *mdns.Msg {
	t.Helper()
	c := mdns.Client{Net: network, Timeout: 10 * time.Second}
	r, _, err := c.Exchange(new(mdns.Msg).SetQuestion(name, typ), at)
	if err != nil {
		t.Fatalf("%s %s: %v", network, name, err)
	}
	return r
}

func TestForward(t *testing.T) {
	var one, two, three atomic.Int32
	upstream(t, fmt.Sprintf("127.0.1.1:%d", testPort), func(w mdns.ResponseWriter, m *mdns.Msg) { one.Add(1) }) // silent
	upstream(t, fmt.Sprintf("127.0.1.2:%d", testPort), answerWith("192.0.2.2", &two))
	upstream(t, fmt.Sprintf("127.0.1.3:%d", testPort), func(w mdns.ResponseWriter, m *mdns.Msg) {
		three.Add(1)
		w.WriteMsg(new(mdns.Msg).SetRcode(m, mdns.RcodeServerFailure))
	})
	var servers atomic.Pointer[[]netip.Addr]
	use := func(s ...string) {
		var l []netip.Addr
		for _, a := range s {
			l = append(l, addr(a))
		}
		servers.Store(&l)
	}
	f := NewForwarder(func() []netip.Addr { return *servers.Load() })
	f.port = testPort
	v := testView()
	v.Forward = true
	_, at := resolver(t, v, f)
	use("127.0.1.1", "127.0.1.2")
	if r := query(t, "udp", at, "out.example.", mdns.TypeA); rrText(r) != "NOERROR 192.0.2.2" {
		t.Errorf("behind a silent server: %s", rrText(r))
	}
	asked := one.Load()
	query(t, "udp", at, "out2.example.", mdns.TypeA)
	if one.Load() != asked {
		t.Error("the silent server was asked first again")
	}
	n := two.Load()
	r := query(t, "udp", at, "OUT.example.", mdns.TypeA)
	if two.Load() != n || rrText(r) != "NOERROR 192.0.2.2" {
		t.Errorf("not from the cache: %s", rrText(r))
	}
	use("127.0.1.3", "127.0.1.2")
	if r := query(t, "udp", at, "out3.example.", mdns.TypeA); rrText(r) != "NOERROR 192.0.2.2" || three.Load() != 1 {
		t.Errorf("behind a failing server: %s", rrText(r))
	}
	use("127.0.1.3")
	if r := query(t, "udp", at, "out4.example.", mdns.TypeA); rrText(r) != "SERVFAIL " {
		t.Errorf("all fail: %s", rrText(r))
	}
	use("127.0.1.9") // nobody there: refused at once
	if r := query(t, "udp", at, "out5.example.", mdns.TypeA); rrText(r) != "SERVFAIL " {
		t.Errorf("nobody: %s", rrText(r))
	}
	use()
	if r := query(t, "tcp", at, "out6.example.", mdns.TypeA); rrText(r) != "SERVFAIL " {
		t.Errorf("no servers: %s", rrText(r))
	}
	use("127.0.1.2")
	if r := query(t, "udp", at, "big.", mdns.TypeA); !r.Truncated {
		t.Error("not truncated")
	}
	if r := query(t, "tcp", at, "big.", mdns.TypeA); r.Truncated || len(r.Answer) != 101 {
		t.Errorf("over TCP: %v %d", r.Truncated, len(r.Answer))
	}
	if r := query(t, "tcp", at, "web.", mdns.TypeA); rrText(r) != "NOERROR 10.0.0.2" {
		t.Error(rrText(r))
	}
}

// A server that never answers must not keep others from being served.
func TestDeadUpstreamStallsNobody(t *testing.T) {
	upstream(t, fmt.Sprintf("127.0.1.4:%d", testPort), func(mdns.ResponseWriter, *mdns.Msg) {})
	f := NewForwarder(func() []netip.Addr { return []netip.Addr{addr("127.0.1.4")} })
	f.port = testPort
	v := testView()
	v.Forward = true
	r, at := resolver(t, v, f)
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range maxInFlight {
		p, _ := new(mdns.Msg).SetQuestion(fmt.Sprintf("q%d.example.", i), mdns.TypeA).Pack()
		c.Write(p)
		if i%100 == 0 {
			query(t, "udp", at, "web.", mdns.TypeA) // keeps pace: the socket's queue is finite
		}
	}
	for end := time.Now().Add(3 * time.Second); r.inFlight.Load() < maxInFlight && time.Now().Before(end); {
		p, _ := new(mdns.Msg).SetQuestion(fmt.Sprintf("r%d.example.", time.Now().UnixNano()), mdns.TypeA).Pack()
		c.Write(p)
		query(t, "udp", at, "web.", mdns.TypeA)
	}
	if m := query(t, "udp", at, "more.example.", mdns.TypeA); m.Rcode != mdns.RcodeRefused {
		t.Errorf("beyond the bound: %s", rrText(m))
	}
	if m := query(t, "udp", at, "db.", mdns.TypeA); rrText(m) != "NOERROR 10.1.0.2" {
		t.Error(rrText(m))
	}
}

func TestCacheAges(t *testing.T) {
	m := new(mdns.Msg).SetQuestion("a.example.", mdns.TypeA)
	m.SetEdns0(1232, true)
	q, _ := m.Pack()
	r := new(mdns.Msg).SetReply(m)
	rr, _ := mdns.NewRR("a.example. 30 IN A 192.0.2.1")
	r.Answer = append(r.Answer, rr)
	r.SetEdns0(1232, true)
	p, _ := r.Pack()
	var c cache
	now := time.Now()
	key := cacheKey(0, nil, q, q[headerLen:headerLen+15])
	c.put(key, p, now)
	got := c.get(key, 7, now.Add(10*time.Second))
	var back mdns.Msg
	if err := back.Unpack(got); err != nil || back.Id != 7 || back.Answer[0].Header().Ttl != 20 || !back.IsEdns0().Do() {
		t.Errorf("%v %v", err, back)
	}
	if c.get(key, 7, now.Add(31*time.Second)) != nil || len(c.m) != 0 {
		t.Error("still there")
	}
	for i := range maxCached + 10 {
		c.put(fmt.Sprint(i), p, now)
	}
	if len(c.m) != maxCached {
		t.Error(len(c.m))
	}
}

// FuzzQuery feeds arbitrary packets: what comes out is a well-formed answer to the
// question, of the size asked for.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"web.", "www.", "database.back.", "2.0.0.10.in-addr.arpa.", "x.example."} {
		m := new(mdns.Msg).SetQuestion(name, mdns.TypeA)
		p, _ := m.Pack()
		f.Add(p)
		m.SetEdns0(1400, true)
		p, _ = m.Pack()
		f.Add(p)
	}
	v := testView()
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, udp := range []bool{true, false} {
			var q question
			var name [maxName]byte
			out, what := v.local(p, nil, udp, &q, &name)
			if what == drop {
				continue
			}
			if what != done {
				t.Fatal("forwarded without a way out")
			}
			if udp && len(out) > q.size && q.size != 0 || binary.BigEndian.Uint16(out) != binary.BigEndian.Uint16(p) {
				t.Fatalf("%x to %x", out, p)
			}
			if !walkRRs(out, func(int, rr) {}) {
				t.Fatalf("malformed: %x", out)
			}
			if out[3]&0xf == rcodeOK {
				var m mdns.Msg
				if err := m.Unpack(out); err != nil {
					t.Fatalf("%v: %x to %x", err, out, p)
				}
			}
		}
	})
}

// FuzzAnswer feeds the cache what servers may send.
func FuzzAnswer(f *testing.F) {
	m := new(mdns.Msg).SetQuestion("a.example.", mdns.TypeA)
	r := new(mdns.Msg).SetReply(m)
	rr, _ := mdns.NewRR("a.example. 30 IN A 192.0.2.1")
	r.Answer = append(r.Answer, rr)
	p, _ := r.Pack()
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		q, _ := m.Pack()
		if !answers(p, idOf(p), q[headerLen:]) {
			return
		}
		var c cache
		c.put("k", p, time.Now())
		c.get("k", 1, time.Now().Add(time.Second))
	})
}

func BenchmarkLocal(b *testing.B) {
	v := testView()
	p, _ := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	out := make([]byte, 0, maxUDP)
	b.ReportAllocs()
	for b.Loop() {
		var q question
		var name [maxName]byte
		if _, what := v.local(p, out, true, &q, &name); what != done {
			b.Fatal(what)
		}
	}
}

// BenchmarkServe asks over real sockets, 64 queries at a time; the clients' work is in it.
func BenchmarkServe(b *testing.B) {
	_, at := resolver(b, testView(), nil)
	c, err := net.Dial("udp", at)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	p, _ := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	buf := make([]byte, 512)
	out := 0
	for b.Loop() {
		c.Write(p)
		if out++; out < 64 {
			continue
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
		out--
	}
}

// BenchmarkLatency keeps 32 clients busy, each with a socket and one query at a time, and
// tells how long the slowest in a hundred and in a thousand waited.
func BenchmarkLatency(b *testing.B) {
	_, at := resolver(b, testView(), nil)
	p, _ := new(mdns.Msg).SetQuestion("web.", mdns.TypeA).Pack()
	const clients = 32
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, clients)
	var wg sync.WaitGroup
	b.ResetTimer()
	for i := range clients {
		wg.Go(func() {
			c, err := net.Dial("udp", at)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 512)
			for left.Add(-1) >= 0 {
				begin := time.Now()
				c.Write(p)
				c.SetReadDeadline(begin.Add(5 * time.Second))
				if _, err := c.Read(buf); err != nil {
					b.Error(err)
					return
				}
				took[i] = append(took[i], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	if len(all) > 0 {
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
		b.ReportMetric(float64(all[len(all)*999/1000].Microseconds()), "p99.9-µs")
	}
}

func idOf(p []byte) uint16 {
	if len(p) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(p)
}
