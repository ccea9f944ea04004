package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// memFDStore is a store of descriptors in this process, as the shim is in its own.
type memFDStore struct {
	mu sync.Mutex
	m  map[string]*os.File
}

func dupFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (k *memFDStore) Store(name string, f *os.File) error {
	d, err := dupFile(f)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m == nil {
		k.m = map[string]*os.File{}
	}
	if old := k.m[name]; old != nil {
		old.Close()
	}
	k.m[name] = d
	return nil
}

func (k *memFDStore) Drop(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if f := k.m[name]; f != nil {
		f.Close()
		delete(k.m, name)
	}
	return nil
}

func (k *memFDStore) TakeAll(prefix string) (map[string]*os.File, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := map[string]*os.File{}
	for name, f := range k.m {
		if !strings.HasPrefix(name, prefix) {
			continue // a duplicate that nobody gets would hold the port until it is collected
		}
		d, err := dupFile(f)
		if err != nil {
			return nil, err
		}
		out[name] = d
	}
	return out, nil
}

// A daemon that dies and comes back finds addresses, ports and rules as they were,
// and containers answer in between.
func TestRestore(t *testing.T) {
	keep := &memFDStore{}
	var cfg Config
	s, _ := newService(t, func(c *Config) { c.FDStore = keep; cfg = *c })
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	sb, err := s.Acquire(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer sb.NetNS.Close()
	serve(t, s.host.NS(), sb.NetNS, "tcp", ":80", "web")
	before, err := s.Inspect(context.Background(), NameBridge)
	if err != nil {
		t.Fatal(err)
	}
	rules := ruleset(t)
	// kill -9: the memory is gone, descriptors of this process are closed.
	s.Close()
	h, err := netns.OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.F.Close()
	if got, err := ask(h, nil, "127.0.0.1:8080"); err != nil || got != "web 172.17.0.1" {
		t.Errorf("while the daemon is dead: %q %v", got, err)
	}
	if out, err := exec.Command("nft", "flush", "table", "inet", "gantry").CombinedOutput(); err != nil {
		t.Logf("nft: %v %s", err, out)
	}
	// A leftover: made by the dead daemon, never recorded.
	nl, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	docker0, err := nl.LinkByName("docker0")
	if err != nil {
		t.Fatal(err)
	}
	stray, err := netns.New(h, nl, []netns.Interface{{IfName: "eth0", HostIf: "vethdeadbee", MAC: netns.RandomMAC(), Bridge: docker0.Index}})
	if err != nil {
		t.Fatal(err)
	}
	defer stray.Close()

	// A port of a start that was never recorded.
	if err := keep.Store("port/tcp/0.0.0.0/9999", stray); err != nil {
		t.Fatal(err)
	}
	// Records travel as JSON.
	data, err := json.Marshal(sb.Record)
	if err != nil {
		t.Fatal(err)
	}
	var rec Record
	if err := json.Unmarshal(data, &rec); err != nil {
		t.Fatal(err)
	}
	s2, err := New(WithDrivers(cfg, nil), event.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Restore(context.Background(), []Record{rec}); err != nil {
		t.Fatal(err)
	}
	after, err := s2.Inspect(context.Background(), NameBridge)
	if err != nil || !reflect.DeepEqual(stable(before), stable(after)) {
		t.Errorf("inspect\n%v\n%v %v", stable(before), stable(after), err)
	}
	if keep.m["port/tcp/0.0.0.0/9999"] != nil {
		t.Error("the stray port is still kept")
	}
	if now := ruleset(t); now != rules {
		t.Errorf("rules\n%s\nwere\n%s", now, rules)
	}
	if _, err := nl.LinkByName("vethdeadbee"); err == nil {
		t.Error("the stray interface is still there")
	}
	for _, addr := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		if got, err := ask(h, nil, addr); err != nil || got != "web 172.17.0.1" {
			t.Errorf("%s: %q %v", addr, got, err)
		}
	}
	other := request("other")
	other.Ports = portMapOf("8080>80/tcp")
	if _, err := s2.Acquire(context.Background(), other); err == nil || !strings.Contains(err.Error(), "already allocated") {
		t.Error(err)
	}
	other.Ports = nil
	if b := run(t, s2, other); b.ip() != netip.MustParseAddr("172.17.0.3") {
		t.Errorf("other got %v", b.ip())
	}
	s2.Release(context.Background(), r.ContainerID)
	if len(keep.m) != 0 {
		t.Errorf("still kept: %v", keep.m)
	}
	if got, err := tryAsk(h, nil, "127.0.0.1:8080"); err == nil {
		t.Errorf("released port answers %q", got)
	}
}

func stable(v any) string {
	data, err := json.Marshal(v)
	return fmt.Sprint(string(data), err)
}

func ruleset(t *testing.T) string {
	out, err := exec.Command("nft", "list", "table", "inet", "gantry").CombinedOutput()
	if err != nil {
		return "" // the table is gone
	}
	return string(out)
}

// A foreign flush is repaired; the user's own chain is not touched by us.
func TestForeignFlush(t *testing.T) {
	s, _ := newService(t, nil)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	b := run(t, s, r)
	serve(t, s.host.NS(), b.NetNS, "tcp", ":80", "web")
	nft := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("nft", args...).CombinedOutput(); err != nil {
			t.Skipf("nft %v: %v %s", args, err, out)
		}
	}
	// What is the user's: rules in their chain, another chain and a set of their own.
	nft("add", "set", "inet", "gantry", "user_bad", "{ type ipv4_addr; elements = { 192.0.2.66 }; }")
	nft("add", "chain", "inet", "gantry", "user_more")
	nft("add", "rule", "inet", "gantry", "user_more", "ip", "saddr", "@user_bad", "drop")
	nft("add", "rule", "inet", "gantry", "user", "jump", "user_more")
	theirs := func() bool {
		now := ruleset(t)
		return strings.Contains(now, "saddr @user_bad drop") && strings.Contains(now, "jump user_more") && strings.Contains(now, "192.0.2.66")
	}
	for _, change := range []string{
		"delete element inet gantry any4 { tcp . 8080 }", "flush set inet gantry bridges", "flush chain inet gantry in",
		"insert rule inet gantry forward drop", "add rule inet gantry guard accept", "flush table inet gantry", "flush ruleset",
	} {
		t.Run(change, func(t *testing.T) {
			was := sortedLines(ruleset(t))
			t.Log(change)
			nft(strings.Fields(change)...)
			waitFor(t, func() bool {
				now := ruleset(t)
				if strings.HasPrefix(change, "flush table") || change == "flush ruleset" {
					ok, err := s.host.Intact()
					return ok && err == nil && strings.Contains(now, "tcp . 8080")
				}
				return sortedLines(now) == was
			})
			if got, err := ask(s.host.NS(), nil, "127.0.0.1:8080"); err != nil || got != "web 172.17.0.1" {
				t.Errorf("after %v: %q %v", change, got, err)
			}
			if !strings.HasPrefix(change, "flush table") && change != "flush ruleset" && !theirs() {
				t.Errorf("after %v the user's own is gone:\n%s", change, ruleset(t))
			}
		})
	}
	nft("flush", "ruleset")
	r2 := request("web2")
	r2.Ports = portMapOf("8081>80/tcp")
	b2 := run(t, s, r2) // a change finds the table gone and makes it again
	serve(t, s.host.NS(), b2.NetNS, "tcp", ":80", "web2")
	for addr, want := range map[string]string{"127.0.0.1:8080": "web 172.17.0.1", "127.0.0.1:8081": "web2 172.17.0.1"} {
		t.Run(addr, func(t *testing.T) {
			if got, err := ask(s.host.NS(), nil, addr); err != nil || got != want {
				t.Errorf("%s: %q %v", addr, got, err)
			}
		})
	}
	nft("add", "rule", "inet", "gantry", "user", "ip", "daddr", "172.17.0.9", "drop")
	if err := s.host.Repair(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(ruleset(t), "ip daddr 172.17.0.9 drop") {
		t.Error("the user's rule is gone")
	}
}

// sortedLines makes dumps comparable: what is made again is listed later.
func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
