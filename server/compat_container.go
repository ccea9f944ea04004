package server

import (
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	containertypes "github.com/moby/moby/api/types/container"
	mounttypes "github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// words is a command that old clients may send as one string.
type words []string

func (w *words) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		var s string
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*w = words{s}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(w))
}

// createBody is the create request with the fields that older versions had.
type createBody struct {
	*containertypes.Config
	Cmd              words
	Entrypoint       words
	MacAddress       networktypes.HardwareAddr // removed with 1.52
	HostConfig       *containertypes.HostConfig
	NetworkingConfig *networktypes.NetworkingConfig
}

// raiseCreate turns a request of version v into what the newest version means by
// it: fields a version did not know are dropped, and its defaults are set.
func raiseCreate(b createBody, v apiVersion) (container.CreateOptions, []string, error) {
	var o container.CreateOptions
	if b.Config == nil && b.Cmd == nil && b.Entrypoint == nil {
		return o, nil, errclass.Invalid("config cannot be empty in order to create a container")
	}
	if b.Config == nil {
		b.Config = &containertypes.Config{}
	}
	b.Config.Cmd, b.Config.Entrypoint = b.Cmd, b.Entrypoint
	if b.HostConfig == nil {
		b.HostConfig = &containertypes.HostConfig{}
	}
	if b.NetworkingConfig == nil {
		b.NetworkingConfig = &networktypes.NetworkingConfig{}
	}
	if b.NetworkingConfig.EndpointsConfig == nil {
		b.NetworkingConfig.EndpointsConfig = map[string]*networktypes.EndpointSettings{}
	}
	for name, ep := range b.NetworkingConfig.EndpointsConfig {
		if ep == nil {
			b.NetworkingConfig.EndpointsConfig[name] = &networktypes.EndpointSettings{}
		}
	}
	if b.HostConfig.NetworkMode == "" {
		b.HostConfig.NetworkMode = networktypes.NetworkDefault
	}
	raiseHostConfig(b.HostConfig, v)
	if v.before(44) && b.Config.Healthcheck != nil {
		b.Config.Healthcheck.StartInterval = 0
	}
	for _, ep := range b.NetworkingConfig.EndpointsConfig {
		if v.before(44) {
			ep.MacAddress = nil
		}
		if v.before(48) {
			ep.GwPriority = 0
		}
	}
	warnings, err := raiseMac(b, v)
	if err != nil {
		return o, nil, err
	}
	o.Config, o.HostConfig, o.Networking = b.Config, b.HostConfig, b.NetworkingConfig
	return o, warnings, nil
}

func raiseHostConfig(h *containertypes.HostConfig, v apiVersion) {
	if v.before(40) && h.IpcMode.IsEmpty() {
		h.IpcMode = containertypes.IPCModeShareable
	}
	if v.before(42) {
		h.ConsoleSize = [2]uint{}
	}
	if v.before(43) {
		h.Annotations = nil
	}
	if v.before(56) {
		h.Umask = nil
	}
	for i := range h.Mounts {
		bind := h.Mounts[i].BindOptions
		if bind == nil && v.before(44) && h.Mounts[i].ReadOnly && h.Mounts[i].Type == mounttypes.TypeBind {
			bind = &mounttypes.BindOptions{}
			h.Mounts[i].BindOptions = bind
		}
		if bind == nil {
			continue
		}
		if v.before(40) {
			bind.NonRecursive = false
		}
		if v.before(42) {
			bind.CreateMountpoint = false
		}
		if v.before(44) {
			// Before 1.44 read-only meant the mount itself, not those below it.
			bind.ReadOnlyNonRecursive, bind.ReadOnlyForceRecursive = h.Mounts[i].ReadOnly, false
		}
	}
}

// raiseMac moves the container-wide MAC address of versions before 1.52 to the
// endpoint of the container's network.
func raiseMac(b createBody, v apiVersion) ([]string, error) {
	mode := b.HostConfig.NetworkMode
	if len(b.MacAddress) == 0 || !v.before(52) {
		return nil, nil
	}
	if !mode.IsDefault() && !mode.IsBridge() && !mode.IsUserDefined() {
		return nil, errclass.Invalid("conflicting options: mac-address and the network mode")
	}
	eps := b.NetworkingConfig.EndpointsConfig
	name := string(mode)
	if _, ok := eps[name]; !ok && len(eps) == 1 {
		for only := range eps {
			name = only
		}
	}
	ep := eps[name]
	if ep == nil {
		ep = &networktypes.EndpointSettings{}
		eps[name] = ep
	}
	if len(ep.MacAddress) != 0 && ep.MacAddress.String() != b.MacAddress.String() {
		return nil, errclass.Invalid("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
	}
	ep.MacAddress = b.MacAddress
	if v.before(44) {
		return nil, nil
	}
	return []string{"The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."}, nil
}

// legacyNetworkSettings has what inspect answered at the top of NetworkSettings
// until 1.51: the default bridge's endpoint, and fields long dead.
type legacyNetworkSettings struct {
	Bridge                 string
	SandboxID              string
	SandboxKey             string
	Ports                  networktypes.PortMap
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []struct{}
	SecondaryIPv6Addresses []struct{}
	EndpointID             string
	Gateway                netip.Addr
	GlobalIPv6Address      netip.Addr
	GlobalIPv6PrefixLen    int
	IPAddress              netip.Addr
	IPPrefixLen            int
	IPv6Gateway            netip.Addr
	MacAddress             networktypes.HardwareAddr
	Networks               map[string]*networktypes.EndpointSettings
}

// legacyConfig has the fields of the configuration that newer versions omit.
type legacyConfig struct {
	*containertypes.Config
	OnBuild    []string
	MacAddress string `json:",omitempty"`
}

// legacyInspect is the inspect answer until 1.51.
type legacyInspect struct {
	containertypes.InspectResponse
	Config          *legacyConfig
	NetworkSettings *legacyNetworkSettings
}

// lowerInspect turns the newest answer into that of version v. Maps of the
// service's answer are not changed.
func lowerInspect(info containertypes.InspectResponse, v apiVersion) any {
	if !v.before(52) {
		return info
	}
	if v.before(48) {
		info.ImageManifestDescriptor = nil
	}
	if info.Storage != nil {
		info.GraphDriver = &storage.DriverData{Name: info.Driver}
	}
	info.Storage = nil
	old := legacyInspect{InspectResponse: info}
	if info.Config != nil {
		old.Config = &legacyConfig{Config: info.Config, OnBuild: info.Config.OnBuild}
	}
	ns := info.NetworkSettings
	if ns == nil {
		return old
	}
	networks := ns.Networks
	if v.before(45) && info.HostConfig != nil {
		networks = withShortID(networks, info.ID)
	}
	old.NetworkSettings = &legacyNetworkSettings{SandboxID: ns.SandboxID, SandboxKey: ns.SandboxKey, Ports: ns.Ports, Networks: networks}
	if ep := ns.Networks[networktypes.NetworkBridge]; ep != nil {
		l := old.NetworkSettings
		l.EndpointID, l.Gateway, l.IPAddress, l.IPPrefixLen = ep.EndpointID, ep.Gateway, ep.IPAddress, ep.IPPrefixLen
		l.IPv6Gateway, l.GlobalIPv6Address, l.GlobalIPv6PrefixLen = ep.IPv6Gateway, ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen
		l.MacAddress = ep.MacAddress
	}
	if info.HostConfig != nil && old.Config != nil {
		mode := string(info.HostConfig.NetworkMode)
		if mode == networktypes.NetworkDefault {
			mode = networktypes.NetworkBridge
		}
		if ep := ns.Networks[mode]; ep != nil && v.before(44) {
			old.Config.MacAddress = ep.MacAddress.String()
		}
	}
	return old
}

// withShortID adds the short container ID to the aliases on user-defined
// networks, where clients before 1.45 look for it.
func withShortID(networks map[string]*networktypes.EndpointSettings, containerID string) map[string]*networktypes.EndpointSettings {
	out := make(map[string]*networktypes.EndpointSettings, len(networks))
	for name, ep := range networks {
		if ep != nil && containertypes.NetworkMode(name).IsUserDefined() && !slices.Contains(ep.Aliases, id.Short(containerID)) {
			ep = ep.Copy()
			ep.Aliases = append(ep.Aliases, id.Short(containerID))
		}
		out[name] = ep
	}
	return out
}

// lowerSummaries drops from list answers what version v did not have.
func lowerSummaries(list []containertypes.Summary, v apiVersion) []containertypes.Summary {
	for i := range list {
		if v.before(46) {
			list[i].HostConfig.Annotations = nil
		}
		if v.before(48) {
			list[i].ImageManifestDescriptor = nil
		}
		if v.before(52) {
			list[i].Health = nil
		}
	}
	return list
}
