package networktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/plugin/plugintest"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Plugin is a network driver and an IPAM driver as a plugin: a bridge a network, a veth pair
// an endpoint; addresses in memory only.
// It works in the network namespace of the thread that made it.
type Plugin struct {
	nl   *rtnl.Conn
	host *os.File

	mu    sync.Mutex
	open  map[string]bool // what was created and not deleted
	pools map[string]*ipam.Space
	// gateways that containers of a network are told to use (option "gateway").
	gateways map[string]string
	ports    []any // what was asked to be published last
}

// ServePlugin runs a plugin on dir/name.sock until the test ends.
func ServePlugin(t *testing.T, dir, name string) *Plugin {
	t.Helper()
	p, err := NewPlugin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	plugintest.Serve(t, dir, name, p)
	return p
}

// NewPlugin makes a plugin; serve it as the http.Handler it is, and close it.
func NewPlugin() (*Plugin, error) {
	host, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	nl, err := rtnl.Dial()
	if err != nil {
		host.Close()
		return nil, err
	}
	return &Plugin{nl: nl, host: host, open: map[string]bool{}, pools: map[string]*ipam.Space{}, gateways: map[string]string{}}, nil
}

// Close ends it; what it made stays.
func (p *Plugin) Close() error { return errors.Join(p.nl.Close(), p.host.Close()) }

// Open names what was created and not deleted.
func (p *Plugin) Open() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var names []string
	for n := range p.open {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

type pluginRequest struct {
	NetworkID, EndpointID string
	Options               map[string]any
	IPv4Data              []struct{ Pool, Gateway string }
	Interface             struct{ Address, AddressIPv6, MacAddress string }
	// Of the IPAM protocol.
	AddressSpace, Pool, SubPool, PoolID, Address string
	V6                                           bool
}

// ServeHTTP answers one call.
func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q pluginRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		http.Error(w, `{"Err":"cannot decode"}`, http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	method := strings.TrimPrefix(r.URL.Path, "/")
	answer, err := p.answer(method, q)
	switch {
	case errors.Is(err, errNoMethod):
		http.NotFound(w, r)
		return
	case err != nil:
		answer = map[string]string{"Err": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

var errNoMethod = errors.New("no such method")

// call is one call of the network driver's protocol: the names that links and records have
// of the network and of the endpoint, and the request.
type call struct {
	net, end string
	pluginRequest
}

// option is one of the options that a user gave a network.
func (c *call) option(name string) any {
	generic, _ := c.Options["com.docker.network.generic"].(map[string]any)
	return generic[name]
}

func (p *Plugin) answer(method string, q pluginRequest) (any, error) {
	if m, ok := strings.CutPrefix(method, "IpamDriver."); ok {
		return p.answerIPAM(m, q)
	}
	do, ok := map[string]func(*Plugin, *call) (any, error){
		"Plugin.Activate": func(*Plugin, *call) (any, error) {
			return map[string][]string{"Implements": {"NetworkDriver", "IpamDriver"}}, nil
		},
		"NetworkDriver.GetCapabilities": func(*Plugin, *call) (any, error) {
			return map[string]string{"Scope": "local", "ConnectivityScope": "local"}, nil
		},
		"NetworkDriver.CreateNetwork":  (*Plugin).createNetwork,
		"NetworkDriver.DeleteNetwork":  (*Plugin).deleteNetwork,
		"NetworkDriver.CreateEndpoint": (*Plugin).createEndpoint,
		"NetworkDriver.DeleteEndpoint": (*Plugin).deleteEndpoint,
		"NetworkDriver.Join":           (*Plugin).join,
		"NetworkDriver.Leave": func(p *Plugin, c *call) (any, error) {
			delete(p.open, "sandbox of "+c.end)
			return struct{}{}, nil
		},
		"NetworkDriver.ProgramExternalConnectivity": (*Plugin).publish,
		"NetworkDriver.RevokeExternalConnectivity": func(p *Plugin, c *call) (any, error) {
			delete(p.open, "ports of "+c.end)
			return struct{}{}, nil
		},
		"NetworkDriver.EndpointOperInfo": func(p *Plugin, _ *call) (any, error) {
			return map[string]any{"Value": map[string]any{"com.docker.network.portmap": p.ports}}, nil
		},
	}[method]
	if !ok {
		return nil, errNoMethod
	}
	short := func(s string) string { return s[:min(len(s), 8)] }
	return do(p, &call{short(q.NetworkID), short(q.EndpointID), q})
}

func (p *Plugin) createNetwork(c *call) (any, error) {
	if v := c.option("fail"); v != nil {
		return nil, fmt.Errorf("no network for %v", v)
	}
	if v := c.option("gateway"); v != nil {
		p.gateways[c.net], _ = v.(string)
	}
	if _, err := p.nl.Do(rtnl.AddBridge("tp"+c.net, nil, 0)); err != nil {
		return nil, err
	}
	p.open["network "+c.net] = true
	return struct{}{}, p.disown("tp"+c.net, true)
}

func (p *Plugin) deleteNetwork(c *call) (any, error) {
	delete(p.open, "network "+c.net)
	return struct{}{}, p.del("tp" + c.net)
}

func (p *Plugin) createEndpoint(c *call) (any, error) {
	if _, err := netip.ParsePrefix(c.Interface.Address); err != nil {
		return nil, err
	}
	p.open["endpoint "+c.end] = true
	return struct{}{}, nil
}

func (p *Plugin) deleteEndpoint(c *call) (any, error) {
	delete(p.open, "endpoint "+c.end)
	return struct{}{}, p.del("tv" + c.end)
}

// join makes the pair of interfaces of which the daemon moves one into the container.
func (p *Plugin) join(c *call) (any, error) {
	br, err := p.nl.LinkByName("tp" + c.net)
	if err != nil {
		return nil, err
	}
	if _, err := p.nl.Do(rtnl.AddVeth(rtnl.Veth{Name: "tv" + c.end, Master: br.Index, Peer: rtnl.Peer{Name: "tc" + c.end, NS: int(p.host.Fd())}})); err != nil {
		return nil, err
	}
	p.open["sandbox of "+c.end] = true
	return map[string]any{
			"InterfaceName": map[string]string{"SrcName": "tc" + c.end, "DstPrefix": "eth"}, "Gateway": p.gateways[c.net],
			"StaticRoutes": []map[string]any{{"Destination": "198.51.100.0/24", "RouteType": 1}},
		},
		errors.Join(p.disown("tv"+c.end, false), p.disown("tc"+c.end, false))
}

// publish records the published ports of an endpoint.
func (p *Plugin) publish(c *call) (any, error) {
	if !p.open["sandbox of "+c.end] {
		return nil, errors.New("nobody joined")
	}
	p.open["ports of "+c.end] = true
	p.ports, _ = c.Options["com.docker.network.portmap"].([]any)
	if exposed, _ := c.Options["com.docker.network.endpoint.exposedports"].([]any); len(exposed) < len(p.ports) {
		return nil, errors.New("published ports are exposed, too")
	}
	return struct{}{}, nil
}

// Forget loses all addresses, as a restart of a plugin without a disk.
func (p *Plugin) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.pools)
}

// Addresses tells how many are taken in all.
func (p *Plugin) Addresses() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.pools {
		n += s.Used()
	}
	return n
}

// answerIPAM manages addresses: subnets 10.88.N.0/24 and fd88:N::/64 when none is requested.
func (p *Plugin) answerIPAM(method string, q pluginRequest) (any, error) {
	none := struct{}{}
	switch method {
	case "GetCapabilities":
		return map[string]bool{"RequiresMACAddress": false, "RequiresRequestReplay": true}, nil
	case "GetDefaultAddressSpaces":
		return map[string]string{"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}, nil
	case "RequestPool":
		return p.requestPool(q)
	case "ReleasePool":
		delete(p.pools, q.PoolID)
		delete(p.open, "pool "+q.PoolID)
		return none, nil
	}
	s := p.pools[q.PoolID]
	if s == nil {
		return nil, fmt.Errorf("no pool %q", q.PoolID)
	}
	switch method {
	case "RequestAddress":
		a, err := netip.ParseAddr(q.Address)
		if q.Address == "" {
			a, err = s.Next()
		} else if err == nil {
			err = s.Take(a)
		}
		if err != nil {
			return nil, err
		}
		p.open["address "+a.String()] = true
		return map[string]any{"Address": netip.PrefixFrom(a, s.Subnet().Bits()).String(), "Data": none}, nil
	case "ReleaseAddress":
		a, err := netip.ParseAddr(q.Address)
		if err != nil {
			return nil, err
		}
		s.Release(a)
		delete(p.open, "address "+q.Address)
		return none, nil
	}
	return nil, errNoMethod
}

func (p *Plugin) requestPool(q pluginRequest) (any, error) {
	if q.AddressSpace != "here" {
		return nil, fmt.Errorf("no address space %q", q.AddressSpace)
	}
	if o := q.Options["fail"]; o != nil {
		return nil, fmt.Errorf("no pool for %v", o)
	}
	for n := 1; q.Pool == "" && n < 256; n++ {
		pool := fmt.Sprintf("10.88.%d.0/24", n)
		if q.V6 {
			pool = fmt.Sprintf("fd88:%x::/64", n)
		}
		if p.pools[pool] == nil {
			q.Pool = pool
		}
	}
	subnet, err := netip.ParsePrefix(q.Pool)
	if err != nil {
		return nil, err
	}
	rng := subnet
	if q.SubPool != "" {
		if rng, err = netip.ParsePrefix(q.SubPool); err != nil {
			return nil, err
		}
	}
	if p.pools[q.Pool] != nil {
		return nil, fmt.Errorf("pool %s is taken", q.Pool)
	}
	if p.pools[q.Pool], err = ipam.NewSpace(subnet, rng); err != nil {
		return nil, err
	}
	p.open["pool "+q.Pool] = true
	return map[string]any{"PoolID": q.Pool, "Pool": q.Pool, "Data": map[string]string{}}, nil
}

// disown takes an interface out of the engine's group: it is not the engine's.
func (p *Plugin) disown(name string, up bool) error {
	l, err := p.nl.LinkByName(name)
	if err != nil {
		return err
	}
	reqs := []*rtnl.Request{rtnl.SetGroup(l.Index, 0)}
	if up {
		reqs = append(reqs, rtnl.SetUp(l.Index))
	}
	_, err = p.nl.Do(reqs...)
	return err
}

func (p *Plugin) del(name string) error {
	if _, err := p.nl.Do(rtnl.DelLink(name)); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}
