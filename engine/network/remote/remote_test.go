package remote

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/driver/drivertest"
	"github.com/gantry/gantry/engine/plugin/plugintest"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// wire is a plugin that gives the host's interface lan0 to every container.
func wire() *plugintest.Plugin {
	p := plugintest.New("NetworkDriver")
	answer := func(method string, a any) {
		p.Handle("NetworkDriver."+method, func([]byte) (any, error) { return a, nil })
	}
	answer("GetCapabilities", map[string]string{"Scope": "local"})
	for _, m := range []string{"CreateNetwork", "DeleteNetwork", "CreateEndpoint", "DeleteEndpoint", "Leave"} {
		answer(m, struct{}{})
	}
	answer("Join", map[string]any{"InterfaceName": map[string]string{"SrcName": "lan0", "DstPrefix": "eth"}})
	return p
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, drivertest.Target{New: New(plugintest.Source{"wire": wire()}), Name: "wire", Elsewhere: true})
}

// What a plugin answers to Join is not believed.
func TestJoinAnswers(t *testing.T) {
	for what, answer := range map[string]string{
		"no interface":     `{}`,
		"another file":     `{"InterfaceName":{"SrcName":"../x"}}`,
		"no prefix":        `{"InterfaceName":{"SrcName":"lan0","DstPrefix":"a b"}}`,
		"no gateway":       `{"InterfaceName":{"SrcName":"lan0"},"Gateway":"here"}`,
		"a scoped gateway": `{"InterfaceName":{"SrcName":"lan0"},"GatewayIPv6":"fe80::1%lan0"}`,
		"no route":         `{"InterfaceName":{"SrcName":"lan0"},"StaticRoutes":[{"Destination":"x"}]}`,
		"no next hop":      `{"InterfaceName":{"SrcName":"lan0"},"StaticRoutes":[{"Destination":"10.0.0.0/8","RouteType":0,"NextHop":"x"}]}`,
		"no JSON":          `[`,
	} {
		t.Run(what, func(t *testing.T) {
			p := wire()
			p.Handle("NetworkDriver.Join", func([]byte) (any, error) { return json.RawMessage(answer), nil })
			d := New(plugintest.Source{"wire": p})(drivertest.NewHost(t, rtnl.Link{Name: "lan0"}))
			n := driver.Network{ID: "n", Name: "net", Driver: "wire"}
			if i, err := d.Join(t.Context(), n, driver.Endpoint{ID: "e", ContainerID: "0123456789abcdef"}); err == nil {
				t.Errorf("%+v", i)
			}
			calls := p.Calls()
			if last := calls[len(calls)-1]; last != "NetworkDriver.DeleteEndpoint" {
				t.Errorf("the endpoint stays: %v", calls)
			}
		})
	}
}

// A plugin that publishes nothing is no error; what it says that it published is checked.
func TestPublish(t *testing.T) {
	p := wire()
	d, ok := New(plugintest.Source{"wire": p})(drivertest.NewHost(t)).(*Driver)
	if !ok {
		t.Fatal("another type")
	}
	n := driver.Network{ID: "n", Driver: "wire"}
	e := driver.Endpoint{ID: "e", Ports: network.PortMap{network.MustParsePort("80/tcp"): {{HostPort: "8000-8010"}}}}
	if got, err := d.Publish(t.Context(), n, e); err != nil || got != nil {
		t.Errorf("%v %v", got, err)
	}
	var asked struct{ Options map[string]any }
	p.Handle("NetworkDriver.ProgramExternalConnectivity", func(b []byte) (any, error) { return struct{}{}, json.Unmarshal(b, &asked) })
	p.Handle("NetworkDriver.EndpointOperInfo", func([]byte) (any, error) {
		return json.RawMessage(`{"Value":{"com.docker.network.portmap":[
			{"Proto":6,"Port":80,"HostIP":"::ffff:192.0.2.1","HostPort":8001}, {"Proto":99,"Port":80}, {"Proto":17}, {"Proto":17,"Port":53,"HostIP":"junk","HostPort":53}]}}`), nil
	})
	got, err := d.Publish(t.Context(), n, e)
	if err != nil || len(got) != 2 || got[0].HostIP != netip.MustParseAddr("192.0.2.1") || got[0].ContainerPort != 80 || got[0].HostPort != 8001 ||
		got[0].Proto != "tcp" || got[1].Proto != "udp" || got[1].HostIP.IsValid() {
		t.Errorf("%+v %v", got, err)
	}
	if ports, _ := asked.Options[labelPorts].([]any); len(ports) != 1 {
		t.Errorf("asked for %v", asked.Options)
	}
	if err := d.Unpublish(t.Context(), n, e); err != nil {
		t.Error(err)
	}
}

// A network is made by the plugin of its driver's name, if it is one of local networks.
func TestStart(t *testing.T) {
	p := wire()
	d := New(plugintest.Source{"wire": p, "volumes": plugintest.New("VolumeDriver")})(drivertest.NewHost(t))
	for name, class := range map[string]error{"nobody": errdefs.ErrNotFound, "volumes": errdefs.ErrNotFound} {
		t.Run(name, func(t *testing.T) {
			if err := d.Start(t.Context(), driver.Network{ID: "n", Driver: name}, false); !errors.Is(err, class) {
				t.Errorf("%s: %v", name, err)
			}
			if err := d.Stop(t.Context(), driver.Network{ID: "n", Driver: name}, nil); err != nil {
				t.Errorf("%s: a plugin that is gone holds its network: %v", name, err)
			}
		})
	}
	p.Handle("NetworkDriver.GetCapabilities", func([]byte) (any, error) { return map[string]string{"Scope": "global"}, nil })
	if err := d.Start(t.Context(), driver.Network{ID: "n", Driver: "wire"}, false); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Error(err)
	}
	p.Handle("NetworkDriver.CreateNetwork", func([]byte) (any, error) { return nil, errors.New("no more") })
	p.Handle("NetworkDriver.GetCapabilities", func([]byte) (any, error) { return map[string]string{"Scope": "local"}, nil })
	if err := d.Start(t.Context(), driver.Network{ID: "n", Driver: "wire"}, false); err == nil || err.Error() != "remote: no more" {
		t.Error(err)
	}
}
