package network

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/network"
)

// TestConfigNetworksRefused: what a configuration network, and one made from it, cannot say.
func TestConfigNetworksRefused(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	from := &network.ConfigReference{Network: "conf"}
	yes, no := true, false
	create(t, s, network.CreateRequest{Name: "conf", ConfigOnly: true})
	const specified = "user specified configurations are not supported if the network depends on a configuration network"
	const operator = "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported."
	for _, c := range []struct {
		r    network.CreateRequest
		text string
	}{
		{network.CreateRequest{ConfigOnly: true, Internal: true}, operator},
		{network.CreateRequest{ConfigOnly: true, Attachable: true}, operator},
		{network.CreateRequest{ConfigOnly: true, Ingress: true}, operator},
		{network.CreateRequest{ConfigOnly: true, Scope: "local"}, operator},
		{network.CreateRequest{ConfigOnly: true, ConfigFrom: from}, "a configuration network cannot depend on another configuration network"},
		{network.CreateRequest{ConfigFrom: from, Labels: map[string]string{"x": "y"}}, specified},
		{network.CreateRequest{ConfigFrom: from, EnableIPv6: &yes}, specified},
		{network.CreateRequest{ConfigFrom: from, EnableIPv4: &no}, specified},
		{network.CreateRequest{ConfigFrom: from, IPAM: &network.IPAM{Options: map[string]string{"x": "y"}}}, specified},
		{network.CreateRequest{ConfigFrom: from, Options: map[string]string{"x": "y"}}, "network driver options are not supported if the network depends on a configuration network"},
	} {
		t.Run(c.text, func(t *testing.T) {
			c.r.Name = "x"
			if _, err := s.Create(ctx, c.r); !errors.Is(err, errdefs.ErrPermissionDenied) || err.Error() != c.text {
				t.Errorf("%+v: %v", c.r, err)
			}
		})
	}
}

func TestConfigNetworks(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	from := &network.ConfigReference{Network: "conf"}
	create(t, s, network.CreateRequest{
		Name: "conf", ConfigOnly: true, Driver: "bridge", Labels: map[string]string{"a": "b"},
		Options: map[string]string{bridge.OptICC: "false"},
		IPAM:    &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.44.0.0/24")}}},
	})
	conf, err := s.Inspect(ctx, "conf")
	if err != nil || !conf.ConfigOnly || conf.Driver != "null" || conf.Scope != "local" {
		t.Errorf("%+v %v", conf, err)
	}
	create(t, s, network.CreateRequest{Name: "net", ConfigFrom: from, Internal: true, Attachable: true})
	n, err := s.Inspect(ctx, "net")
	if err != nil || n.Driver != "bridge" || n.IPAM.Config[0].Subnet.String() != "10.44.0.0/24" || n.Labels["a"] != "b" || n.Options[bridge.OptICC] != "false" ||
		!n.Internal || !n.Attachable || n.ConfigFrom.Network != "conf" {
		t.Errorf("%+v %v", n, err)
	}
	if _, err := s.Acquire(ctx, on(request("a"), "conf")); !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), "cannot create endpoint on configuration-only network") {
		t.Error(err)
	}
	if err := s.Remove(ctx, "conf"); !errors.Is(err, errdefs.ErrPermissionDenied) || err.Error() != `configuration network "conf" is in use` {
		t.Error(err)
	}
	if err := errors.Join(s.Remove(ctx, "net"), s.Remove(ctx, "conf")); err != nil {
		t.Error(err)
	}
	if _, err := s.Create(ctx, network.CreateRequest{Name: "i", Driver: "overlay", Ingress: true}); !errors.Is(err, errdefs.ErrUnavailable) || !strings.HasPrefix(err.Error(), "This node is not a swarm manager.") {
		t.Error(err)
	}
}

func TestListFilters(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	one := create(t, s, network.CreateRequest{Name: "one", Labels: map[string]string{"tier": "web"}})
	create(t, s, network.CreateRequest{Name: "onetwo", Driver: "macvlan"})
	run(t, s, on(request("a"), "one"))
	for _, c := range []struct {
		f    filter.Args
		want string
	}{
		{filter.Args{"name": {"one"}}, "none one onetwo"},
		{filter.Args{"name": {"^one$"}}, "one"},
		{filter.Args{"name": {"("}}, ""},
		{filter.Args{"id": {one[:12]}}, "one"},
		{filter.Args{"driver": {"macvlan", "null"}}, "none onetwo"},
		{filter.Args{"label": {"tier"}}, "one"},
		{filter.Args{"label": {"tier=db"}}, ""},
		{filter.Args{"type": {"builtin"}}, "bridge host none"},
		{filter.Args{"type": {"custom"}}, "one onetwo"},
		{filter.Args{"scope": {"swarm"}}, ""},
		{filter.Args{"dangling": {"true"}}, "onetwo"},
		{filter.Args{"dangling": {"0"}, "type": {"custom"}}, "one"},
	} {
		t.Run(c.want, func(t *testing.T) {
			got, err := s.List(ctx, c.f)
			var names []string
			for _, n := range got {
				names = append(names, n.Name)
			}
			if strings.Join(names, " ") != c.want || err != nil {
				t.Errorf("%v: %v %v", c.f, names, err)
			}
		})
	}
	for _, bad := range []filter.Args{{"type": {"odd"}}, {"dangling": {"perhaps"}}, {"until": {"1h"}}, {"label!": {"x"}}} {
		if _, err := s.List(ctx, bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%v: %v", slices.Collect(maps.Keys(bad)), err)
		}
	}
	for _, c := range []struct {
		f    filter.Args
		want string
	}{
		{filter.Args{"until": {"1h"}}, ""},
		{filter.Args{"label": {"nothing"}}, ""},
		{filter.Args{"label!": {"tier"}, "until": {time.Now().Add(time.Minute).Format(time.RFC3339)}}, "onetwo"},
	} {
		t.Run(c.want, func(t *testing.T) {
			rep, err := s.Prune(ctx, c.f)
			if err != nil || strings.Join(rep.NetworksDeleted, " ") != c.want {
				t.Errorf("prune %v: %v %v", c.f, rep, err)
			}
		})
	}
}
