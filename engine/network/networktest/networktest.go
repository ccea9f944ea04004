// Package networktest is the suite that every network driver passes with real packets between
// real namespaces. It runs in the network namespace of its caller, which must be one that the
// test made for itself.
package networktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	engine "github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/networktest/tcp"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// Target is one driver, or one mode of it, under test.
type Target struct {
	// Start starts a service; it is called again for the same data-root after the
	// service before was closed. The test that calls Run cleans up at its end.
	Start func(records []engine.Record) *engine.Service
	// Request asks for the network.
	Request network.CreateRequest
	// Lacks is part of the refusal where this machine cannot do it: the suite then holds
	// that it is clear and leaves nothing.
	Lacks string
	// Apart: containers of the network do not reach each other.
	Apart bool
	// Single: there can be one container only.
	Single bool
	// World is an address and TCP port that answers outside, if the network has a way out.
	World netip.AddrPort
	// Bad are requests that are refused with the Invalid class.
	Bad []map[string]string
}

// Run holds a driver to all that is expected of it.
func Run(t *testing.T, tg Target) {
	k := &kit{Target: tg, t: t, s: tg.Start(nil), boxes: map[string]*box{}}
	var err error
	if k.host, err = netns.OpenHost(); err != nil {
		t.Fatal(err)
	}
	defer k.host.Close()
	defer func() {
		for _, b := range k.boxes {
			k.release(b)
		}
		k.s.Close()
	}()
	before := k.links()
	k.refusals()
	if got := k.links(); got != before {
		t.Errorf("refused networks left %s, before there was %s", got, before)
	}
	id := k.create()
	if id == "" {
		if got := k.links(); got != before {
			t.Errorf("the refused network left %s, before there was %s", got, before)
		}
		return
	}
	k.live(id)
	if !tg.Single {
		k.crowd()
	}
	k.restart()
	k.connect()
	for _, b := range k.boxes {
		k.release(b)
	}
	if err := k.s.Remove(context.Background(), id); err != nil {
		t.Error(err)
	}
	k.eventually("the host's interfaces are as before: "+before, func() bool { return k.links() == before })
	if !tg.Single {
		k.internal(before)
	}
}

type kit struct {
	Target
	t     *testing.T
	s     *engine.Service
	host  netns.Host
	boxes map[string]*box
}

// box is a running container as the network sees it.
type box struct {
	*engine.Sandbox
	req engine.SandboxRequest
}

func (k *kit) request(name, netw string) engine.SandboxRequest {
	id := fmt.Sprintf("%064x", []byte(name))
	r := engine.SandboxRequest{ContainerID: id[len(id)-64:], Name: name, Hostname: name}
	if netw != "" {
		r.Endpoints = map[string]*network.EndpointSettings{netw: {}}
	}
	return r
}

func (k *kit) run(name, netw string) *box {
	k.t.Helper()
	r := k.request(name, netw)
	sb, err := k.s.Acquire(context.Background(), r)
	if err != nil {
		k.t.Fatalf("container %s: %v", name, err)
	}
	b := &box{sb, r}
	k.boxes[name] = b
	return b
}

func (k *kit) release(b *box) {
	k.t.Helper()
	delete(k.boxes, b.req.Name)
	b.NetNS.Close()
	if err := k.s.Release(context.Background(), b.req.ContainerID); err != nil {
		k.t.Error(err)
	}
}

// refusals: options that cannot be.
func (k *kit) refusals() {
	for _, bad := range k.Bad {
		r := k.Request
		r.Name, r.Options = "bad", bad
		if _, err := k.s.Create(context.Background(), r); !errors.Is(err, errdefs.ErrInvalidArgument) {
			k.t.Errorf("options %v: %v", bad, err)
		}
	}
}

func (k *kit) create() string {
	k.t.Helper()
	resp, err := k.s.Create(context.Background(), k.Request)
	if k.Lacks != "" {
		if err == nil || !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), k.Lacks) {
			k.t.Errorf("create: %v, want %q of class not implemented", err, k.Lacks)
		}
		if _, err := k.s.Inspect(context.Background(), k.Request.Name); !errors.Is(err, errdefs.ErrNotFound) {
			k.t.Errorf("a refused network is there: %v", err)
		}
		return ""
	}
	if err != nil {
		k.t.Fatal(err)
	}
	in, err := k.s.Inspect(context.Background(), resp.ID)
	if err != nil || in.Driver != k.Request.Driver || in.Name != k.Request.Name || len(in.IPAM.Config) == 0 {
		k.t.Errorf("inspect: %+v %v", in, err)
	}
	if _, err := k.s.Create(context.Background(), k.Request); !errors.Is(err, errdefs.ErrConflict) {
		k.t.Errorf("the same once more: %v", err)
	}
	return resp.ID
}

// live: containers have what was said, talk as they may, and hold the network.
func (k *kit) live(id string) {
	name := k.Request.Name
	a := k.run("a", name)
	k.holds(a)
	if k.World.IsValid() {
		k.talk(a, k.World, true)
	}
	if !k.Single {
		b := k.run("b", name)
		k.holds(b)
		if k.addr(a) == k.addr(b) {
			k.t.Errorf("two containers have %v", k.addr(a))
		}
		k.serve(b)
		k.talk(a, netip.AddrPortFrom(k.addr(b), 80), !k.Apart)
	}
	if err := k.s.Remove(context.Background(), id); !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), "has active endpoints") {
		k.t.Errorf("removing a network in use: %v", err)
	}
	in, err := k.s.Inspect(context.Background(), id)
	if err != nil || in.Containers[a.req.ContainerID].IPv4Address.Addr() != k.addr(a) {
		k.t.Errorf("inspect: %+v %v", in.Containers, err)
	}
}

// holds: the interface inside is what the endpoint's settings say.
func (k *kit) holds(b *box) {
	k.t.Helper()
	e, es := b.Record.Endpoints[0], b.Endpoints[k.Request.Name]
	if e.IfName != "eth0" || es == nil || es.IPAddress != e.IPv4.Addr() || es.EndpointID != e.ID {
		k.t.Errorf("%s: record %+v, settings %+v", b.req.Name, e, es)
		return
	}
	err := k.host.Inside(b.NetNS, func() error {
		nl, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer nl.Close()
		l, err := nl.LinkByName(e.IfName)
		if err != nil {
			return err
		}
		addrs, err := nl.Addrs(l.Index)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(addrs, func(a rtnl.Addr) bool { return a.Prefix == e.IPv4 }) {
			return fmt.Errorf("addresses %v, want %v", addrs, e.IPv4)
		}
		if !l.Up() || l.MAC.String() != e.MAC || es.MacAddress.String() != e.MAC {
			return fmt.Errorf("link %+v, want MAC %s; settings say %v", l, e.MAC, es.MacAddress)
		}
		return nil
	})
	if err != nil {
		k.t.Errorf("%s: %v", b.req.Name, err)
	}
}

// crowd: many at once, all different, and all of it comes back.
func (k *kit) crowd() {
	const many = 20
	before := k.links()
	used := map[netip.Addr]bool{}
	var mu sync.Mutex
	var boxes []*box
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			r := k.request(fmt.Sprintf("crowd%d", i), k.Request.Name)
			sb, err := k.s.Acquire(context.Background(), r)
			if err != nil {
				k.t.Errorf("one of a crowd: %v", err)
				return
			}
			a := sb.Record.Endpoints[0].IPv4.Addr()
			mu.Lock()
			if used[a] {
				k.t.Errorf("%v was given twice", a)
			}
			used[a] = true
			boxes = append(boxes, &box{sb, r})
			mu.Unlock()
		})
	}
	wg.Wait()
	for _, b := range boxes {
		k.release(b)
	}
	k.eventually("a crowd's interfaces are gone", func() bool { return k.links() == before })
}

// restart: the daemon's death changes nothing.
func (k *kit) restart() {
	var recs []engine.Record
	for _, b := range k.boxes {
		recs = append(recs, b.Record)
	}
	before := k.links()
	k.s.Close()
	k.s = k.Start(recs)
	if got := k.links(); got != before {
		k.t.Errorf("after a restart there is %s, before %s", got, before)
	}
	a := k.boxes["a"]
	k.holds(a)
	if k.World.IsValid() {
		k.talk(a, k.World, true)
	}
	if k.Single {
		return
	}
	k.talk(a, netip.AddrPortFrom(k.addr(k.boxes["b"]), 80), !k.Apart)
	c := k.run("c", k.Request.Name)
	for _, name := range []string{"a", "b"} {
		if k.addr(c) == k.addr(k.boxes[name]) {
			k.t.Errorf("%v is given again while %s has it", k.addr(c), name)
		}
	}
}

// connect: a running container comes and goes.
func (k *kit) connect() {
	if k.Single {
		k.release(k.boxes["a"])
	}
	z := k.run("z", "")
	if z.NetNS == nil {
		var err error
		if z.NetNS, err = netns.New(k.host, nil, nil); err != nil {
			k.t.Skip("no namespace for a container without networks: ", err)
		}
	}
	sb, err := k.s.Connect(context.Background(), z.NetNS, k.request("z", k.Request.Name))
	if err != nil {
		k.t.Errorf("connect: %v", err)
		return
	}
	z.Record, z.Endpoints = sb.Record, sb.Endpoints
	k.holds(z)
	if k.World.IsValid() {
		k.talk(z, k.World, true)
	}
	if !k.Single {
		k.talk(z, netip.AddrPortFrom(k.addr(k.boxes["b"]), 80), !k.Apart)
	}
	if _, err := k.s.Connect(context.Background(), z.NetNS, k.request("z", k.Request.Name)); !errors.Is(err, errdefs.ErrPermissionDenied) {
		k.t.Errorf("connecting twice: %v", err)
	}
	if _, err := k.s.Disconnect(context.Background(), z.NetNS, z.req.ContainerID, k.Request.Name, nil); err != nil {
		k.t.Errorf("disconnect: %v", err)
	}
	err = k.host.Inside(z.NetNS, func() error {
		nl, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer nl.Close()
		_, err = nl.LinkByName("eth0")
		return err
	})
	if !errors.Is(err, unix.ENODEV) {
		k.t.Errorf("after disconnecting, the interface inside: %v", err)
	}
}

// internal: the same network without a way out.
func (k *kit) internal(before string) {
	r := k.Request
	r.Internal = true
	if _, err := k.s.Create(context.Background(), r); err != nil {
		k.t.Errorf("internal: %v", err)
		return
	}
	i := k.run("i", r.Name)
	if k.World.IsValid() {
		err := k.host.Inside(i.NetNS, func() error {
			nl, err := rtnl.Dial()
			if err != nil {
				return err
			}
			defer nl.Close()
			routes, err := nl.Routes()
			for _, rt := range routes {
				if !rt.Dst.IsValid() || rt.Dst.Bits() == 0 {
					return fmt.Errorf("there is a default route: %+v", rt)
				}
			}
			return err
		})
		if err != nil {
			k.t.Errorf("internal: %v", err)
		}
	}
	k.release(i)
	if err := k.s.Remove(context.Background(), r.Name); err != nil {
		k.t.Error(err)
	}
	k.eventually("nothing of an internal network is left", func() bool { return k.links() == before })
}

func (k *kit) addr(b *box) netip.Addr { return b.Record.Endpoints[0].IPv4.Addr() }

// links are the names of the host's interfaces.
func (k *kit) links() string {
	nl, err := rtnl.Dial()
	if err != nil {
		k.t.Fatal(err)
	}
	defer nl.Close()
	all, err := nl.Links(0)
	if err != nil {
		k.t.Fatal(err)
	}
	var names []string
	for _, l := range all {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func (k *kit) eventually(what string, ok func() bool) {
	k.t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			k.t.Errorf("waited in vain until %s; there is %s", what, k.links())
			return
		}
	}
}

// serve accepts connections to port 80 of a container.
func (k *kit) serve(b *box) {
	k.t.Helper()
	var l net.Listener
	if err := k.host.Inside(b.NetNS, func() (err error) { l, err = net.Listen("tcp4", ":80"); return err }); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// talk connects from a container; ok tells what is expected.
func (k *kit) talk(b *box, to netip.AddrPort, ok bool) {
	k.t.Helper()
	patience := 5 * time.Second
	if !ok {
		patience = 300 * time.Millisecond
	}
	err := k.host.Inside(b.NetNS, func() error {
		fd, err := tcp.Connect(to, patience)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
	if (err == nil) != ok {
		k.t.Errorf("%s to %v: %v, want reached=%v", b.req.Name, to, err, ok)
	}
}
