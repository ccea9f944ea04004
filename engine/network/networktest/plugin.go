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

func (p *Plugin) answer(method string, q pluginRequest) (any, error) {
	none := struct{}{}
	short := func(s string) string { return s[:min(len(s), 8)] }
	net, end := short(q.NetworkID), short(q.EndpointID)
	switch method {
	case "Plugin.Activate":
		return map[string][]string{"Implements": {"NetworkDriver", "IpamDriver"}}, nil
	case "NetworkDriver.GetCapabilities":
		return map[string]string{"Scope": "local", "ConnectivityScope": "local"}, nil
	case "NetworkDriver.CreateNetwork":
		if generic, _ := q.Options["com.docker.network.generic"].(map[string]any); generic["fail"] != nil {
			return nil, fmt.Errorf("no network for %v", generic["fail"])
		}
		if generic, _ := q.Options["com.docker.network.generic"].(map[string]any); generic["gateway"] != nil {
			p.gateways[net], _ = generic["gateway"].(string)
		}
		if _, err := p.nl.Do(rtnl.AddBridge("tp"+net, nil, 0)); err != nil {
			return nil, err
		}
		p.open["network "+net] = true
		return none, p.disown("tp"+net, true)
	case "NetworkDriver.DeleteNetwork":
		delete(p.open, "network "+net)
		return none, p.del("tp" + net)
	case "NetworkDriver.CreateEndpoint":
		if _, err := netip.ParsePrefix(q.Interface.Address); err != nil {
			return nil, err
		}
		p.open["endpoint "+end] = true
		return none, nil
	case "NetworkDriver.Join":
		br, err := p.nl.LinkByName("tp" + net)
		if err != nil {
			return nil, err
		}
		if _, err := p.nl.Do(rtnl.AddVeth(rtnl.Veth{Name: "tv" + end, Master: br.Index, Peer: rtnl.Peer{Name: "tc" + end, NS: int(p.host.Fd())}})); err != nil {
			return nil, err
		}
		p.open["sandbox of "+end] = true
		return map[string]any{
				"InterfaceName": map[string]string{"SrcName": "tc" + end, "DstPrefix": "eth"}, "Gateway": p.gateways[net],
				"StaticRoutes": []map[string]any{{"Destination": "198.51.100.0/24", "RouteType": 1}},
			},
			errors.Join(p.disown("tv"+end, false), p.disown("tc"+end, false))
	case "NetworkDriver.ProgramExternalConnectivity":
		if !p.open["sandbox of "+end] {
			return nil, errors.New("nobody joined")
		}
		p.open["ports of "+end] = true
		p.ports, _ = q.Options["com.docker.network.portmap"].([]any)
		if exposed, _ := q.Options["com.docker.network.endpoint.exposedports"].([]any); len(exposed) < len(p.ports) {
			return nil, errors.New("published ports are exposed, too")
		}
		return none, nil
	case "NetworkDriver.EndpointOperInfo":
		return map[string]any{"Value": map[string]any{"com.docker.network.portmap": p.ports}}, nil
	case "NetworkDriver.RevokeExternalConnectivity":
		delete(p.open, "ports of "+end)
		return none, nil
	case "NetworkDriver.Leave":
		delete(p.open, "sandbox of "+end)
		return none, nil
	case "NetworkDriver.DeleteEndpoint":
		delete(p.open, "endpoint "+end)
		return none, p.del("tv" + end)
	}
	if m, ok := strings.CutPrefix(method, "IpamDriver."); ok {
		return p.answerIPAM(m, q)
	}
	return nil, errNoMethod
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
