package container

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

func (r *rig) networks(ref string) string {
	r.t.Helper()
	got, err := r.Inspect(bg, ref, false)
	r.must(err)
	var names []string
	for _, n := range []string{"bridge", "two"} {
		if got.NetworkSettings.Networks[n] != nil {
			names = append(names, n)
		}
	}
	if len(names) != len(got.NetworkSettings.Networks) {
		r.t.Errorf("%v", got.NetworkSettings.Networks)
	}
	return strings.Join(names, " ")
}

func TestNetworkConnect(t *testing.T) {
	r := newRig(t)
	id := r.create("web", &container.HostConfig{}, "sleep", "1")
	ep := &networktypes.EndpointSettings{Aliases: []string{"www"}}

	// Stopped: the next start will have it.
	r.must(r.NetworkConnect(bg, "two", "web", ep))
	wantErr(t, r.NetworkConnect(bg, "two", "web", ep), errdefs.ErrPermissionDenied, "endpoint with name web already exists in network two")
	if got := r.networks("web"); got != "bridge two" {
		t.Error(got)
	}
	chosen := &networktypes.EndpointSettings{IPAMConfig: &networktypes.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("1.2.3.4")}}
	wantErr(t, r.NetworkConnect(bg, "three", "web", chosen), errdefs.ErrInvalidArgument, "no address can be chosen on three")
	r.must(r.NetworkDisconnect(bg, "net-two", "web", false))
	wantErr(t, r.NetworkDisconnect(bg, "two", "web", false), errdefs.ErrPermissionDenied, "container "+id+" is not connected to the network two")
	wantErr(t, r.NetworkConnect(bg, "host", "web", nil), errdefs.ErrInvalidArgument, "container cannot be disconnected from host network or connected to host network")
	wantErr(t, r.NetworkConnect(bg, "none", "web", nil), errdefs.ErrInvalidArgument, "private (none) mode")
	wantErr(t, r.NetworkConnect(bg, "two", "nobody", nil), errdefs.ErrNotFound, "No such container: nobody")

	// Running: at once, and the daemon that follows knows.
	r.must(r.Start(bg, "web"))
	r.must(r.NetworkConnect(bg, "two", "web", ep))
	hosts, err := os.ReadFile(r.files.HostFile(id, "hosts"))
	if err != nil || !strings.Contains(string(hosts), "172.18.0.2\t") {
		t.Errorf("%s %v", hosts, err)
	}
	r.stop()
	r.start()
	if got := r.networks("web"); got != "bridge two" {
		t.Error(got)
	}
	if len(r.nets.restored) != 1 || len(r.nets.restored[0].Endpoints) != 1 {
		t.Errorf("restored %+v", r.nets.restored)
	}
	r.must(r.NetworkDisconnect(bg, "two", "web", true))
	if hosts, _ := os.ReadFile(r.files.HostFile(id, "hosts")); strings.Contains(string(hosts), "172.18.0.2") {
		t.Errorf("%s", hosts)
	}
	if got := r.networks("web"); got != "bridge" {
		t.Error(got)
	}
	r.must(r.Remove(bg, "web", RemoveOptions{Force: true}))
	r.create("joined", &container.HostConfig{NetworkMode: "container:x"}, "sleep", "1")
	_, err = r.Create(bg, CreateOptions{
		Config:     &container.Config{Image: "img", ExposedPorts: networktypes.PortSet{networktypes.MustParsePort("80/tcp"): {}}},
		HostConfig: &container.HostConfig{NetworkMode: "container:joined"},
	})
	wantErr(t, err, errdefs.ErrInvalidArgument, "conflicting options: port exposing and the container type network mode")
	wantErr(t, r.NetworkConnect(bg, "two", "joined", nil), errdefs.ErrInvalidArgument, "container sharing network namespace with another container or host cannot be connected to any other network")
}
