package nft

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// inNewNetns locks the test to a thread with a network namespace of its own, which is
// thrown away with the goroutine. Both connections work from any thread, so in subtests too:
// ours, and that of somebody else.
func inNewNetns(t *testing.T) (*Conn, *nftables.Conn) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs root: %v", err)
	}
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	other, err := nftables.New(nftables.AsLasting())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = other.CloseLasting()
	})
	return c, other
}

// do makes a transaction of somebody else's in a table.
func do(t *testing.T, other *nftables.Conn, table string, change func(*nftables.Conn, *nftables.Table)) {
	t.Helper()
	change(other, &nftables.Table{Name: table, Family: nftables.TableFamilyINet})
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
}

func addRule(chain string) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, tb *nftables.Table) {
		c.AddRule(&nftables.Rule{Table: tb, Chain: &nftables.Chain{Table: tb, Name: chain}, Exprs: []expr.Any{&expr.Counter{}}})
	}
}

func addChain(chain string) func(*nftables.Conn, *nftables.Table) {
	return func(c *nftables.Conn, tb *nftables.Table) { c.AddChain(&nftables.Chain{Table: tb, Name: chain}) }
}

func delTable(c *nftables.Conn, tb *nftables.Table) { c.DelTable(tb) }

func apply(t *testing.T, c *Conn, r Ruleset) {
	t.Helper()
	if err := c.Apply(r); err != nil {
		t.Fatal(err)
	}
}

func intact(t *testing.T, c *Conn, r Ruleset, want bool) {
	t.Helper()
	got, err := c.Intact(r)
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("intact is %t, want %t", got, want)
	}
}

// Every statement and every kind of set is taken by the kernel, and nft(8) reads back what
// our text says.
func TestApplyEverything(t *testing.T) {
	c, _ := inNewNetns(t)
	r := every()
	for range 2 { // applying again changes nothing
		apply(t, c, r)
		intact(t, c, r, true)
	}
	bin, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("the kernel takes it; no nft(8) to read it back")
	}
	list := func() string {
		out, err := exec.Command(bin, "-n", "list", "table", "inet", "every").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	ours := list()
	if err := c.Clear("every", "user"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-f", "-")
	cmd.Stdin = strings.NewReader(r.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if text := list(); text != ours {
		t.Errorf("the kernel has\n%s\nbut the text means\n%s", ours, text)
	}
}

func small(elems ...string) Ruleset {
	s := Set{Name: "s", Key: []Type{IfName}}
	for _, e := range elems {
		s.Elems = append(s.Elems, Elem{Key: []Value{e}})
	}
	return Ruleset{Table: "small", Sets: []Set{s}, Chains: []Chain{
		{Name: "user", Foreign: true},
		{Name: "forward", Hook: &Hook{Type: "filter", Hook: "forward"}, Rules: []Rule{{Jump{Chain: "user"}}, {InIf{Set: "s"}, Drop{}}}},
	}}
}

// A second ruleset of the same table: what it does not name goes, types of sets may change,
// and the user's chains and rules stay.
func TestApplyReplaces(t *testing.T) {
	c, other := inNewNetns(t)
	first := small("a", "b")
	first.Chains = append(first.Chains, Chain{Name: "old", Rules: []Rule{{InIf{Set: "s"}, Accept{}}}})
	first.Sets = append(first.Sets, Set{Name: "gone", Key: []Type{IPv4}})
	apply(t, c, first)
	do(t, other, "small", addRule("user"))
	do(t, other, "small", addChain("user-own"))
	second := small()
	second.Sets[0] = Set{Name: "s", Key: []Type{Proto}}
	second.Chains[1].Rules = []Rule{{Drop{}}}
	apply(t, c, second)
	intact(t, c, second, true)
	intact(t, c, first, false)
	chains, sets, err := c.existing("small")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, ch := range chains {
		rules, err := c.c.GetRules(ch.Table, ch)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, fmt.Sprintf("%s %d", ch.Name, len(rules)))
	}
	slices.Sort(names)
	if want := []string{"forward 1", "user 1", "user-own 0"}; !slices.Equal(names, want) {
		t.Errorf("chains with their number of rules %q, want %q", names, want)
	}
	if len(sets) != 1 || sets[0].Name != "s" {
		t.Errorf("%d sets", len(sets))
	}
}

// One transaction: when the kernel refuses a part, the table is as it was.
func TestApplyFailsWhole(t *testing.T) {
	c, _ := inNewNetns(t)
	good := small("a")
	apply(t, c, good)
	for _, bad := range []struct {
		name string
		r    func(*Ruleset)
	}{
		{"a jump to nowhere", func(r *Ruleset) { r.Chains[1].Rules = append(r.Chains[1].Rules, Rule{Jump{Chain: "none"}}) }},
		{"a loop of jumps", func(r *Ruleset) {
			r.Chains[1].Rules = append(r.Chains[1].Rules, Rule{Jump{Chain: "x"}})
			r.Chains = append(r.Chains, Chain{Name: "x", Rules: []Rule{{Jump{Chain: "y"}}}}, Chain{Name: "y", Rules: []Rule{{Jump{Chain: "x"}}}})
		}},
		{"an element that does not fit", func(r *Ruleset) { r.Sets[0].Elems = append(r.Sets[0].Elems, Elem{Key: []Value{uint16(1)}}) }},
		{"a type that is not known", func(r *Ruleset) { r.Sets = append(r.Sets, Set{Name: "x", Key: []Type{"mark"}}) }},
		{"a set that is not there", func(r *Ruleset) { r.Chains[1].Rules = append(r.Chains[1].Rules, Rule{InIf{Set: "none"}}) }},
		{"translation in a filter", func(r *Ruleset) { r.Chains[1].Rules = append(r.Chains[1].Rules, Rule{Masquerade{}}) }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			r := small("b", "c")
			bad.r(&r)
			if err := c.Apply(r); err == nil {
				t.Error("it is taken")
			}
			// What failed is not sent along with the next.
			if err := c.Update(Changes{Add: []SetElems{{Set: "s", Elems: []Elem{{Key: []Value{"b"}}}}}, Del: []SetElems{{Set: "s", Elems: []Elem{{Key: []Value{"a"}}}}}}); err != nil {
				t.Error(err)
			}
			if err := c.Update(Changes{Add: []SetElems{{Set: "s", Elems: []Elem{{Key: []Value{"a"}}}}}, Del: []SetElems{{Set: "s", Elems: []Elem{{Key: []Value{"b"}}}}}}); err != nil {
				t.Error(err)
			}
			if got := elements(t, c, "s"); !slices.Equal(got, []string{"a"}) {
				t.Errorf("set s has %q afterwards", got)
			}
			intact(t, c, good, true)
		})
	}
}

// elements are the names in a set of interfaces, read by c's own socket.
func elements(t *testing.T, c *Conn, set string) []string {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, sets, err := c.existing("small")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range sets {
		if s.Name != set {
			continue
		}
		es, err := c.c.GetSetElements(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			out = append(out, strings.TrimRight(string(e.Key), "\x00"))
		}
	}
	slices.Sort(out)
	return out
}

func TestUpdate(t *testing.T) {
	c, other := inNewNetns(t)
	names := func(list ...string) []SetElems {
		se := SetElems{Set: "s"}
		for _, n := range list {
			se.Elems = append(se.Elems, Elem{Key: []Value{n}})
		}
		return []SetElems{se}
	}
	if err := c.Update(Changes{Add: names("a")}); err == nil || err.Error() != "nftables: update before apply" {
		t.Errorf("before Apply: %v", err)
	}
	apply(t, c, small("a", "b"))
	for _, step := range []struct {
		name string
		ch   Changes
		err  string
		want []string
	}{
		{"both", Changes{Add: names("c", "d"), Del: names("a")}, "", []string{"b", "c", "d"}},
		{"nothing", Changes{}, "", []string{"b", "c", "d"}},
		{"a set that is not there", Changes{Add: []SetElems{{Set: "none"}}}, "nftables: no set none", []string{"b", "c", "d"}},
		{"an element that does not fit, behind one that does", Changes{Add: append(names("e"), SetElems{Set: "s", Elems: []Elem{{Key: []Value{"a name that is too long"}}}})}, `set s: element "a name that is too long": value a name that is too long does not fit type ifname`, []string{"b", "c", "d"}},
		{"after an error", Changes{Del: names("d")}, "", []string{"b", "c"}},
		{"one that is there", Changes{Add: names("c")}, "", []string{"b", "c"}},
	} {
		t.Run(step.name, func(t *testing.T) {
			err := c.Update(step.ch)
			if err != nil && err.Error() != step.err || err == nil && step.err != "" {
				t.Errorf("%v, want %q", err, step.err)
			}
			if got := elements(t, c, "s"); !slices.Equal(got, step.want) {
				t.Errorf("has %q, want %q", got, step.want)
			}
		})
	}
	t.Run("removing what is not there", func(t *testing.T) {
		if err := c.Update(Changes{Del: names("b", "zzz")}); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v, want ENOENT", err)
		}
		if got := elements(t, c, "s"); !slices.Equal(got, []string{"b", "c"}) {
			t.Errorf("half of it was done: %q", got)
		}
	})
	t.Run("more than a message holds", func(t *testing.T) {
		var many []string
		for n := range 3*maxElemsPerMessage + 1 {
			many = append(many, fmt.Sprintf("if%04d", n))
		}
		if err := c.Update(Changes{Add: names(many...)}); err != nil {
			t.Fatal(err)
		}
		if got := elements(t, c, "s"); len(got) != len(many)+2 {
			t.Errorf("%d elements, want %d", len(got), len(many)+2)
		}
	})
	t.Run("a table that somebody removed", func(t *testing.T) {
		do(t, other, "small", delTable)
		if err := c.Update(Changes{Add: names("x")}); !errors.Is(err, unix.ENOENT) {
			t.Errorf("%v, want ENOENT", err)
		}
	})
}

// Intact looks at what is there, not at what it says.
func TestIntact(t *testing.T) {
	c, other := inNewNetns(t)
	r := small("a")
	intact(t, c, r, false)
	for _, step := range []struct {
		name   string
		change func(*nftables.Conn, *nftables.Table)
		want   bool
	}{
		{"nothing", func(*nftables.Conn, *nftables.Table) {}, true},
		{"a rule of the user's", addRule("user"), true},
		{"a chain more", addChain("more"), true},
		{"a rule more", addRule("forward"), false},
		{"no rules", func(o *nftables.Conn, tb *nftables.Table) { o.FlushChain(&nftables.Chain{Table: tb, Name: "forward"}) }, false},
		{"no table", delTable, false},
		{"no set", func(o *nftables.Conn, tb *nftables.Table) {
			o.FlushChain(&nftables.Chain{Table: tb, Name: "forward"})
			o.DelSet(&nftables.Set{Table: tb, Name: "s"})
		}, false},
		{"no chain", func(o *nftables.Conn, tb *nftables.Table) {
			o.FlushChain(&nftables.Chain{Table: tb, Name: "forward"})
			o.DelChain(&nftables.Chain{Table: tb, Name: "forward"})
		}, false},
	} {
		t.Run(step.name, func(t *testing.T) {
			apply(t, c, r)
			do(t, other, "small", step.change)
			intact(t, c, r, step.want)
		})
	}
}

// Clear leaves what is the user's, and nothing where that is nothing.
func TestClear(t *testing.T) {
	c, other := inNewNetns(t)
	there := func() []string {
		chains, sets, err := c.existing("small")
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, ch := range chains {
			out = append(out, ch.Name)
		}
		for _, s := range sets {
			out = append(out, "set "+s.Name)
		}
		slices.Sort(out)
		return out
	}
	for _, step := range []struct {
		name string
		prep func()
		want []string
	}{
		{"no table", func() {}, nil},
		{"nothing of the user's", func() { apply(t, c, small("a")) }, nil},
		{"an empty chain of the user's", func() {
			apply(t, c, small("a"))
			do(t, other, "small", addChain("user-own"))
		}, nil},
		{"a rule of the user's", func() {
			apply(t, c, small("a"))
			do(t, other, "small", addRule("user"))
		}, []string{"user"}},
		{"again", func() {}, []string{"user"}},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.prep()
			if err := c.Clear("small", "user"); err != nil {
				t.Fatal(err)
			}
			if got := there(); !slices.Equal(got, step.want) {
				t.Errorf("%q is left, want %q", got, step.want)
			}
		})
	}
}

// Which of the kernel's messages are about a change that somebody else made to what is ours.
func TestForeignMessages(t *testing.T) {
	c, other := inNewNetns(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	r := small("a", "b")
	w := &Watcher{own: c.port, r: r}
	// told reads the messages of one transaction: the kernel closes each with a NEWGEN.
	told := func(t *testing.T) (foreign bool) {
		buf := make([]byte, 64<<10)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				t.Fatal(err)
			}
			foreign = w.foreign(buf[:n]) || foreign
			for b := buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
				if binary.NativeEndian.Uint16(b[4:])&0xff == unix.NFT_MSG_NEWGEN {
					return foreign
				}
				b = b[min(int(binary.NativeEndian.Uint32(b)+3)&^3, len(b)):]
			}
		}
	}
	theirs := func(change func(*nftables.Conn, *nftables.Table)) func(*testing.T) {
		return func(t *testing.T) { do(t, other, "small", change) }
	}
	forward := func(tb *nftables.Table) *nftables.Chain { return &nftables.Chain{Table: tb, Name: "forward"} }
	for _, step := range []struct {
		name string
		do   func(*testing.T)
		want bool
	}{
		{"we make the table", func(t *testing.T) { apply(t, c, r) }, false},
		{"we make it again", func(t *testing.T) { apply(t, c, r) }, false},
		{"we change a set", func(t *testing.T) {
			if err := c.Update(Changes{Del: []SetElems{{Set: "s", Elems: []Elem{{Key: []Value{"b"}}}}}}); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"another table", func(t *testing.T) {
			do(t, other, "elsewhere", func(o *nftables.Conn, tb *nftables.Table) { o.AddTable(tb) })
		}, false},
		{"another table goes", func(t *testing.T) { do(t, other, "elsewhere", delTable) }, false},
		{"a chain of the user's", theirs(addChain("user-web")), false},
		{"a rule of the user's", theirs(addRule("user-web")), false},
		{"a chain of the user's goes", theirs(func(o *nftables.Conn, tb *nftables.Table) {
			ch := &nftables.Chain{Table: tb, Name: "user-web"}
			o.FlushChain(ch)
			o.DelChain(ch)
		}), false},
		{"a rule in our chain", theirs(addRule("forward")), true},
		{"an element goes", theirs(func(o *nftables.Conn, tb *nftables.Table) {
			_ = o.SetDeleteElements(&nftables.Set{Table: tb, Name: "s", KeyType: nftables.TypeIFName}, []nftables.SetElement{{Key: ifname("a")}})
		}), true},
		{"our rules go", theirs(func(o *nftables.Conn, tb *nftables.Table) { o.FlushChain(forward(tb)) }), true},
		{"our set goes", theirs(func(o *nftables.Conn, tb *nftables.Table) { o.DelSet(&nftables.Set{Table: tb, Name: "s"}) }), true},
		{"our chain goes", theirs(func(o *nftables.Conn, tb *nftables.Table) { o.DelChain(forward(tb)) }), true},
		{"the table goes", theirs(delTable), true},
		{"everything goes", func(t *testing.T) {
			apply(t, c, r)
			told(t)
			other.FlushRuleset()
			if err := other.Flush(); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do(t)
			if got := told(t); got != step.want {
				t.Errorf("foreign is %t, want %t", got, step.want)
			}
		})
	}
}

// Messages that are cut, or lie about their length, are a reason to look.
func TestForeignDecodes(t *testing.T) {
	msg := func(l uint32, typ uint16, body []byte) []byte {
		b := binary.NativeEndian.AppendUint32(nil, l)
		b = binary.NativeEndian.AppendUint16(b, typ)
		b = append(b, make([]byte, 10)...) // flags, sequence, port
		return append(b, body...)
	}
	const delTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE
	attr := func(l uint16, s string) []byte {
		b := binary.NativeEndian.AppendUint16([]byte{unix.NFPROTO_INET, 0, 0, 0}, l)
		return append(binary.NativeEndian.AppendUint16(b, 1), s...)
	}
	w := &Watcher{own: 7, r: Ruleset{Table: "abc"}}
	for _, c := range []struct {
		name string
		in   []byte
		want bool
	}{
		{"nothing", nil, false},
		{"ours", msg(28, delTable, attr(8, "abc\x00")), true},
		{"another's", msg(28, delTable, attr(8, "abd\x00")), false},
		{"another family's", msg(28, delTable, append([]byte{unix.NFPROTO_IPV4}, attr(8, "abc\x00")[1:]...)), false},
		{"another subsystem's", msg(28, 0x0100|unix.NFT_MSG_DELTABLE, attr(8, "abc\x00")), false},
		{"longer than it is", msg(1000, delTable, attr(8, "abc\x00")), true},
		{"shorter than a header", msg(3, delTable, nil), true},
		{"without a body", msg(16, delTable, nil), false},
		{"an attribute longer than its message", msg(28, delTable, attr(800, "abc\x00")), false},
		{"an attribute without a length", msg(28, delTable, attr(0, "abc\x00")), false},
		{"ours behind another's", append(msg(28, delTable, attr(8, "abd\x00")), msg(28, delTable, attr(8, "abc\x00"))...), true},
		{"cut behind the header's length", msg(28, delTable, nil)[:8], false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := w.foreign(c.in); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}

func FuzzForeign(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 2, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, b []byte) {
		w := &Watcher{own: 7, r: Ruleset{Table: "abc", Chains: []Chain{{Name: "user", Foreign: true}}}}
		w.foreign(b)
	})
}

// The watch calls after a change of somebody else's, again while the call fails, and not
// once it is closed.
func TestWatch(t *testing.T) {
	c, other := inNewNetns(t)
	r := small("a")
	apply(t, c, r)
	calls := make(chan int, 16)
	n := 0
	w, err := c.Watch(r, func() error {
		n++
		calls <- n
		if n == 1 {
			return errors.New("not this time")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	do(t, other, "small", delTable)
	for want := 1; want <= 2; want++ {
		select {
		case got := <-calls:
			if got != want {
				t.Errorf("call %d, want %d", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no call %d", want)
		}
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if len(calls) != 0 {
		t.Errorf("%d calls more", len(calls))
	}
}

// up sets the loopback device of the calling thread's namespace up.
func up(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Fatal(err)
	}
}

// echo serves one connection or datagram after the other on its own thread's namespace.
func serveUDP(t *testing.T, at string) {
	t.Helper()
	pc, err := net.ListenPacket("udp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(append([]byte("udp "), buf[:n]...), from)
		}
	}()
}

func serveTCP(t *testing.T, at, says string) {
	t.Helper()
	l, err := net.Listen("tcp4", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(conn, says)
			conn.Close()
		}
	}()
}

func firstLine(t *testing.T, at string) (string, error) {
	t.Helper()
	conn, err := net.DialTimeout("tcp4", at, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	s, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(s), err
}

// The rules do to packets what their names say.
func TestPackets(t *testing.T) {
	c, _ := inNewNetns(t)
	up(t)
	serveTCP(t, "127.0.0.1:9090", "translated")
	serveTCP(t, "127.0.0.1:9091", "open")
	serveTCP(t, "127.0.0.1:9092", "closed")
	key := func(p uint16) []Value { return []Value{addr("127.0.0.1"), "tcp", p} }
	apply(t, c, Ruleset{
		Table: "packets",
		Sets: []Set{
			{Name: "closed", Key: []Type{IPv4, Proto, Service}, Elems: []Elem{{Key: key(9092)}}},
			{Name: "to", Key: []Type{IPv4, Proto, Service}, Data: []Type{IPv4, Service}, Elems: []Elem{{Key: key(80), Data: []Value{addr("127.0.0.1"), uint16(9090)}}}},
		},
		Chains: []Chain{
			{Name: "dnat", Hook: &Hook{Type: "nat", Hook: "output", Priority: -100}, Rules: []Rule{{DstLocal{}, DNATByAddr{Family: V4, Map: "to"}}}},
			{Name: "input", Hook: &Hook{Type: "filter", Hook: "input"}, Rules: []Rule{
				{Established{}, Accept{}},
				{InIf{Name: "lo"}, PortSet{Family: V4, Set: "closed"}, Drop{}},
			}},
		},
	})
	for at, want := range map[string]string{"127.0.0.1:80": "translated", "127.0.0.1:9091": "open"} {
		if got, err := firstLine(t, at); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", at, got, err, want)
		}
	}
	conn, err := net.DialTimeout("tcp4", "127.0.0.1:9092", 300*time.Millisecond)
	if err == nil {
		conn.Close()
		t.Error("a closed port answers")
	}
}

// What is sent to the address of the name server reaches our sockets at other ports, and
// the answer comes from where the question went.
func TestRewriteLoopback(t *testing.T) {
	inNewNetns(t)
	up(t)
	serveUDP(t, "127.0.0.11:4053")
	serveTCP(t, "127.0.0.11:4054", "tcp")
	for _, fresh := range []bool{true, false} {
		if err := RewriteLoopback("names", netip.MustParseAddr("127.0.0.11"), 53, 4053, 4054, fresh); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) {
				t.Skip("no netdev family here: ", err)
			}
			t.Fatal(err)
		}
		if got, err := firstLine(t, "127.0.0.11:53"); err != nil || got != "tcp" {
			t.Errorf("tcp: %q, %v", got, err)
		}
		conn, err := net.Dial("udp4", "127.0.0.11:53") // a connected socket takes answers from there only
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64)
		n, err := conn.Read(buf)
		conn.Close()
		if err != nil || string(buf[:n]) != "udp question" {
			t.Errorf("udp: %q, %v", buf[:n], err)
		}
	}
}
