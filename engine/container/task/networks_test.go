package task

import (
	"net/netip"
	"testing"

	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/ports"
	networktypes "github.com/moby/moby/api/types/network"
)

// After a network has gone the container shows what is still bound: every port of a row, and
// its exposed ports without one.
func TestPortsBound(t *testing.T) {
	any4 := netip.IPv4Unspecified()
	rec := network.Record{Endpoints: []network.EndpointRecord{{Ports: []ports.Mapping{
		{Proto: "tcp", HostIP: any4, HostPort: 8000, ContainerPort: 9000, Count: 100},
		{Proto: "udp", HostIP: any4, ContainerPort: 53}, // open on its own address
	}}}}
	old := networktypes.PortMap{networktypes.MustParsePort("53/udp"): nil, networktypes.MustParsePort("7/tcp"): {{HostPort: "7"}}}
	got := portsBound(old, rec)
	if len(got) != 102 || len(got[networktypes.MustParsePort("7/tcp")]) != 0 || len(got[networktypes.MustParsePort("53/udp")]) != 0 {
		t.Errorf("%d ports: %v", len(got), got)
	}
	if last := got[networktypes.MustParsePort("9099/tcp")]; len(last) != 1 || last[0].HostPort != "8099" {
		t.Errorf("the last of the row: %v", last)
	}
}
