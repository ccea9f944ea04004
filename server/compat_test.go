package server

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	containertypes "github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	mounttypes "github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
	systemtypes "github.com/moby/moby/api/types/system"

	"github.com/gantry/gantry/internal/filter"
)

// keys returns the value at path of v's JSON encoding, and whether it is there.
func at(t *testing.T, v any, path string) (any, bool) {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var cur any
	if err := json.Unmarshal(data, &cur); err != nil {
		t.Fatal(err)
	}
	for _, k := range strings.Split(path, "/") {
		m, ok := cur.(map[string]any)
		if !ok {
			return nil, false
		}
		if cur, ok = m[k]; !ok {
			return nil, false
		}
	}
	return cur, true
}

func TestLowerInspect(t *testing.T) {
	mac := networktypes.HardwareAddr{2, 0x42, 0xac, 0x11, 0, 2}
	info := containertypes.InspectResponse{
		ID: strings.Repeat("ab", 32), Driver: "overlayfs", Storage: &storage.Storage{},
		Config: &containertypes.Config{Image: "i"}, HostConfig: &containertypes.HostConfig{NetworkMode: "bridge"},
		NetworkSettings: &containertypes.NetworkSettings{SandboxID: "s", Networks: map[string]*networktypes.EndpointSettings{
			"bridge": {IPAddress: netip.MustParseAddr("172.17.0.2"), Gateway: netip.MustParseAddr("172.17.0.1"), IPPrefixLen: 16, MacAddress: mac, EndpointID: "e"},
			"mine":   {Aliases: []string{"a"}},
		}},
	}
	for _, c := range []struct {
		v     apiVersion
		path  string
		want  any
		there bool
	}{
		{55, "NetworkSettings/IPAddress", nil, false},
		{55, "NetworkSettings/SandboxID", "s", true},
		{55, "Config/OnBuild", nil, false},
		{55, "GraphDriver", nil, false},
		{51, "GraphDriver/Name", "overlayfs", true},
		{51, "GraphDriver/Data", nil, true},
		{51, "Storage", nil, false},
		{51, "NetworkSettings/IPAddress", "172.17.0.2", true},
		{51, "NetworkSettings/Gateway", "172.17.0.1", true},
		{51, "NetworkSettings/IPPrefixLen", 16.0, true},
		{51, "NetworkSettings/MacAddress", "02:42:ac:11:00:02", true},
		{51, "NetworkSettings/GlobalIPv6Address", "", true},
		{51, "NetworkSettings/Bridge", "", true},
		{51, "NetworkSettings/SandboxID", "s", true},
		{51, "Config/OnBuild", nil, true},
		{51, "Config/Image", "i", true},
		{51, "Config/MacAddress", nil, false},
		{43, "Config/MacAddress", "02:42:ac:11:00:02", true},
		{24, "Id", strings.Repeat("ab", 32), true},
	} {
		t.Run(c.path, func(t *testing.T) {
			got, there := at(t, lowerInspect(info, c.v), c.path)
			if there != c.there || got != c.want {
				t.Errorf("%v %s: %v %v, want %v %v", c.v, c.path, got, there, c.want, c.there)
			}
		})
	}
	old, _ := at(t, lowerInspect(info, 44), "NetworkSettings/Networks/mine/Aliases")
	if a := old.([]any); len(a) != 2 || a[1] != "abababababab" {
		t.Errorf("aliases before 1.45: %v", old)
	}
	if len(info.NetworkSettings.Networks["mine"].Aliases) != 1 {
		t.Error("the service's own map was changed")
	}
	if got := lowerInspect(containertypes.InspectResponse{}, 40); got == nil {
		t.Error("an empty answer")
	}
}

func TestRaiseHostConfig(t *testing.T) {
	umask := uint32(0o77)
	h := &containertypes.HostConfig{
		Annotations: map[string]string{"a": "b"}, ConsoleSize: [2]uint{1, 2}, Umask: &umask,
		Mounts: []mounttypes.Mount{
			{ReadOnly: true, BindOptions: &mounttypes.BindOptions{CreateMountpoint: true, NonRecursive: true}},
			{},
			{Type: mounttypes.TypeBind, ReadOnly: true},
		},
	}
	raiseHostConfig(h, 39)
	if h.Annotations != nil || h.ConsoleSize != [2]uint{} || h.IpcMode != "shareable" || h.Umask != nil {
		t.Errorf("%+v", h)
	}
	if b := h.Mounts[2].BindOptions; b == nil || !b.ReadOnlyNonRecursive {
		t.Errorf("%+v", b)
	}
	h.Umask = &umask
	if raiseHostConfig(h, 55); h.Umask != nil {
		t.Error("1.55 knows no umask")
	}
	h.Umask = &umask
	if raiseHostConfig(h, 56); h.Umask == nil {
		t.Error("1.56 knows the umask")
	}
	if b := h.Mounts[0].BindOptions; b.CreateMountpoint || b.NonRecursive || !b.ReadOnlyNonRecursive {
		t.Errorf("%+v", b)
	}
	h = &containertypes.HostConfig{Annotations: map[string]string{"a": "b"}}
	raiseHostConfig(h, newest)
	if h.Annotations == nil || h.IpcMode != "" {
		t.Errorf("%+v", h)
	}
}

func TestRaiseMac(t *testing.T) {
	mac := networktypes.HardwareAddr{2, 0, 0, 0, 0, 1}
	body := func(mode string, eps map[string]*networktypes.EndpointSettings) createBody {
		return createBody{
			Config: &containertypes.Config{}, MacAddress: mac, HostConfig: &containertypes.HostConfig{NetworkMode: containertypes.NetworkMode(mode)},
			NetworkingConfig: &networktypes.NetworkingConfig{EndpointsConfig: eps},
		}
	}
	o, w, err := raiseCreate(body("bridge", nil), 44)
	if err != nil || len(w) != 1 || o.Networking.EndpointsConfig["bridge"].MacAddress.String() != mac.String() {
		t.Errorf("%+v %v %v", o, w, err)
	}
	if o, _, err := raiseCreate(body("bridge", nil), 52); err != nil || len(o.Networking.EndpointsConfig) != 0 {
		t.Errorf("%+v %v", o, err)
	}
	if _, _, err := raiseCreate(body("host", nil), 44); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	other := map[string]*networktypes.EndpointSettings{"n": {MacAddress: networktypes.HardwareAddr{2, 0, 0, 0, 0, 9}}}
	if _, _, err := raiseCreate(body("n", other), 44); !errdefs.IsInvalidArgument(err) {
		t.Error(err)
	}
	if o, _, err := raiseCreate(body("n", map[string]*networktypes.EndpointSettings{"n": nil}), 44); err != nil || o.Networking.EndpointsConfig["n"].MacAddress.String() != mac.String() {
		t.Errorf("%+v %v", o, err)
	}
}

func TestLowerImage(t *testing.T) {
	info := imagetypes.InspectResponse{ID: "sha256:x", Size: 5, Config: &dockerspec.DockerOCIImageConfig{}, Identity: &imagetypes.Identity{}}
	for _, c := range []struct {
		v     apiVersion
		path  string
		there bool
	}{
		{55, "Identity", true},
		{52, "Identity", false},
		{55, "Parent", false},
		{51, "Parent", true},
		{51, "Config/User", true},
		{51, "Config/Tty", false},
		{49, "Config/Tty", true},
		{55, "Config/User", false},
		{44, "VirtualSize", false},
		{43, "VirtualSize", true},
	} {
		t.Run(c.path, func(t *testing.T) {
			if _, there := at(t, lowerImage(info, c.v), c.path); there != c.there {
				t.Errorf("%v %s: %v", c.v, c.path, there)
			}
		})
	}
	list := []imagetypes.Summary{{Size: 7}}
	if got, ok := at(t, map[string]any{"l": lowerImages(list, 42)}, "l"); !ok || got.([]any)[0].(map[string]any)["VirtualSize"] != 7.0 {
		t.Errorf("%v", got)
	}
	if list[0].RepoTags[0] != "<none>:<none>" {
		t.Errorf("%+v", list)
	}
}

func TestLowerInfo(t *testing.T) {
	info := systemtypes.Info{Runtimes: map[string]systemtypes.RuntimeWithStatus{"r": {Status: map[string]string{"a": "b"}}}, FirewallBackend: &systemtypes.FirewallInfo{}}
	for _, c := range []struct {
		v     apiVersion
		path  string
		there bool
	}{
		{55, "FirewallBackend", true},
		{48, "FirewallBackend", false},
		{55, "BridgeNfIptables", false},
		{49, "BridgeNfIptables", true},
		{43, "Runtimes/r/status", false},
		{44, "Runtimes/r/status", true},
	} {
		t.Run(c.path, func(t *testing.T) {
			if _, there := at(t, lowerInfo(info, c.v), c.path); there != c.there {
				t.Errorf("%v %s: %v", c.v, c.path, there)
			}
		})
	}
}

func TestPullReference(t *testing.T) {
	for _, c := range []struct {
		from, tag, ref string
		all            bool
	}{
		{"busybox", "latest", "busybox:latest", false},
		{"busybox", "", "busybox", true},
		{"busybox:", "", "busybox", true},
		{"busybox:1", "", "busybox:1", false},
		{"reg:5000/busybox", "", "reg:5000/busybox", true},
		{"reg:5000/a/b:1", "2", "reg:5000/a/b:2", false},
		{"a", "sha256:abc", "a@sha256:abc", false},
		{"a@sha256:abc", "", "a@sha256:abc", false},
	} {
		t.Run(c.from+" "+c.tag, func(t *testing.T) {
			if ref, all := pullReference(c.from, c.tag); ref != c.ref || all != c.all {
				t.Errorf("%q %q: %q %v", c.from, c.tag, ref, all)
			}
		})
	}
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux amd64 ", "linux/arm64/v8": "linux arm64 ", "arm64": "linux arm64 ", "linux/arm/v6": "linux arm v6",
		"linux/arm": "linux arm v7", "Linux/X86_64": "linux amd64 ", "armhf": "linux arm v7", "windows/amd64": "windows amd64 ",
		`{"os":"linux","architecture":"arm","variant":"v5"}`: "linux arm v5", "linux": "linux  ",
	} {
		t.Run(in, func(t *testing.T) {
			p, err := parsePlatform(in)
			if got := p.OS + " " + p.Architecture + " " + p.Variant; err != nil || got != want {
				t.Errorf("%s: %q %v", in, got, err)
			}
		})
	}
	for _, in := range []string{"", "a/b/c/d", "linux/", "x y", "plan9-ish", "{}", `{"os":1}`, "../x/y"} {
		t.Run(in, func(t *testing.T) {
			if p, err := parsePlatform(in); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%q: %+v %v", in, p, err)
			}
		})
	}
}

func TestParseTime(t *testing.T) {
	for in, want := range map[string]time.Time{
		"": {}, "0": {}, "5": time.Unix(5, 0), "5.5": time.Unix(5, 5e8), "1136073600.000000001": time.Unix(1136073600, 1),
		"5.1234567899": time.Unix(5, 123456789), "-1.5": time.Unix(-1, -5e8),
	} {
		t.Run(in, func(t *testing.T) {
			if got, err := parseTime(in); err != nil || !got.Equal(want) {
				t.Errorf("%q: %v %v", in, got, err)
			}
		})
	}
	for _, in := range []string{"x", "1.x", "1h", "2006-01-02", "1.-5"} {
		t.Run(in, func(t *testing.T) {
			if _, err := parseTime(in); err == nil {
				t.Errorf("%q is a time", in)
			}
		})
	}
}

func TestMatchEvent(t *testing.T) {
	ctr := eventtypes.Message{Type: "container", Action: "exec_create: sh", Scope: "local", Actor: eventtypes.Actor{ID: "c0ffee", Attributes: map[string]string{"name": "web", "image": "reg:5/nginx:1", "tier": "front"}}}
	img := eventtypes.Message{Type: "image", Action: "tag", Actor: eventtypes.Actor{ID: "sha256:1", Attributes: map[string]string{"name": "nginx:1"}}}
	netw := eventtypes.Message{Type: "network", Action: "connect", Actor: eventtypes.Actor{ID: "n1", Attributes: map[string]string{"name": "bridge", "container": "c0ffee"}}}
	for _, c := range []struct {
		f    filter.Args
		m    eventtypes.Message
		want bool
	}{
		{nil, ctr, true},
		{filter.Args{"event": {"exec_create"}}, ctr, true},
		{filter.Args{"event": {"exec"}}, ctr, false},
		{filter.Args{"event": {"start", "exec_create: sh"}}, ctr, true},
		{filter.Args{"type": {"image"}}, ctr, false},
		{filter.Args{"scope": {"swarm"}}, ctr, false},
		{filter.Args{"container": {"web"}}, ctr, true},
		{filter.Args{"container": {"c0"}}, ctr, true},
		{filter.Args{"container": {"db"}}, ctr, false},
		{filter.Args{"container": {"web"}}, img, false},
		{filter.Args{"container": {"c0ffee"}}, netw, false},
		{filter.Args{"image": {"reg:5/nginx"}}, ctr, true},
		{filter.Args{"image": {"reg:5/nginx:2"}}, ctr, false},
		{filter.Args{"image": {"nginx"}}, img, true},
		{filter.Args{"image": {"sha256:1"}}, img, true},
		{filter.Args{"network": {"bridge"}}, netw, true},
		{filter.Args{"label": {"tier=front"}}, ctr, true},
		{filter.Args{"label": {"tier=back"}}, ctr, false},
		{filter.Args{"container": {"web"}, "event": {"die"}}, ctr, false},
	} {
		t.Run(fmt.Sprint(c.f), func(t *testing.T) {
			if got := matchEvent(c.f, c.m); got != c.want {
				t.Errorf("%v on %s %s: %v", c.f, c.m.Type, c.m.Action, got)
			}
		})
	}
}

func TestBar(t *testing.T) {
	for _, c := range []struct {
		current, total int64
		want           string
	}{
		{0, 0, ""},
		{10, 0, "     10B"},
		{10, 5, "[==================================================>]      10B"},
		{0, 5, "[>                                                  ]       0B/5B"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if got := bar(c.current, c.total); got != c.want {
				t.Errorf("%d/%d: %q", c.current, c.total, got)
			}
		})
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]apiVersion{"1.24": 24, "1.57": 57} {
		t.Run(in, func(t *testing.T) {
			if v, err := parseVersion(in); v != want || err != nil {
				t.Errorf("%s: %v %v", in, v, err)
			}
		})
	}
	for _, in := range []string{"1.23", "1.58", "2", "0.9", "1.x", "1.99999999999", "1..2", "."} {
		t.Run(in, func(t *testing.T) {
			if v, err := parseVersion(in); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v %v", in, v, err)
			}
		})
	}
}

func FuzzRouter(f *testing.F) {
	for _, p := range []string{"/v1.44/images/a/b/json", "/containers/x/json", "//", "/v/x", "/images//json", "/v1.2"} {
		f.Add("GET", p)
	}
	s := New(Options{})
	f.Fuzz(func(_ *testing.T, method, path string) {
		version, rest, ok := splitVersion(path)
		if ok {
			_, _ = parseVersion(version) // only must not panic
		}
		s.router.find(method, rest)
	})
}

func FuzzCreateBody(f *testing.F) {
	f.Add([]byte(`{"Image":"i","Cmd":"x","HostConfig":{"Mounts":[{"Type":"bind"}]},"NetworkingConfig":{"EndpointsConfig":{"a":null}}}`), 40)
	f.Fuzz(func(_ *testing.T, data []byte, minor int) {
		var b createBody
		if json.Unmarshal(data, &b) == nil {
			_, _, _ = raiseCreate(b, apiVersion(minor)) // only must not panic
		}
	})
}
