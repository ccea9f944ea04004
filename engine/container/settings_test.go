package container

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	networktypes "github.com/moby/moby/api/types/network"
	volumetypes "github.com/moby/moby/api/types/volume"
)

// request has all settings of a create request.
type request struct {
	Config     container.Config
	HostConfig container.HostConfig
	Networking networktypes.NetworkingConfig
}

// setting is how TestSettings sees that one field of a request is honoured: two requests that
// differ in the field alone must make the shim, the network or the volumes be asked for
// different things; where refused is set, the second must be refused with these words.
type setting struct {
	value any // of the field; func(*rig) any makes it
	// with changes both requests first.
	with    func(r *rig, q *request)
	refused string
	// later is what more can be seen once the container runs.
	later func(r *rig, c *store.Container) string
	// unstarted: the devices that it names are not on this machine, so that the specification
	// is made for others.
	unstarted bool
	// shown settings are told by inspect, and nothing else follows from them, with the reason.
	shown string
	// dropped ones are the engine's to tell: what a request says is ignored, with the reason.
	dropped string
}

// fieldsOf lists the paths of all settings below a type: "HostConfig.Mounts[].Target",
// "HostConfig.PortBindings{}[].HostIP".
func fieldsOf(typ reflect.Type, path string) []string {
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	switch typ.Kind() {
	case reflect.Struct:
		var out []string
		for i := range typ.NumField() {
			f := typ.Field(i)
			switch {
			case f.Anonymous:
				out = append(out, fieldsOf(f.Type, path)...)
			case f.IsExported():
				out = append(out, fieldsOf(f.Type, strings.TrimPrefix(path+"."+f.Name, "."))...)
			}
		}
		if out == nil {
			return []string{path} // a value of its own, as netip.Addr
		}
		return out
	case reflect.Slice:
		if below := fieldsOf(typ.Elem(), path+"[]"); below[0] != path+"[]" {
			return below
		}
	case reflect.Map:
		if below := fieldsOf(typ.Elem(), path+"{}"); below[0] != path+"{}" {
			return below
		}
	}
	return []string{path}
}

// assign sets the field at a path, and makes what is on the way.
func assign(v reflect.Value, path string, value any) {
	switch {
	case v.Kind() == reflect.Pointer && path != "":
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		assign(v.Elem(), path, value)
	case path == "":
		x := reflect.ValueOf(value)
		if v.Kind() == reflect.Pointer && x.Kind() != reflect.Pointer {
			p := reflect.New(v.Type().Elem())
			p.Elem().Set(x.Convert(v.Type().Elem()))
			x = p
		}
		v.Set(x.Convert(v.Type()))
	case strings.HasPrefix(path, "[]"):
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		assign(v.Index(0), path[2:], value)
	case strings.HasPrefix(path, "{}"):
		key := v.MapKeys()[0] // a case gives the map its one key
		item := reflect.New(v.Type().Elem()).Elem()
		item.Set(v.MapIndex(key))
		assign(item, path[2:], value)
		v.SetMapIndex(key, item)
	default:
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[{")
		if end < 0 {
			end = len(path)
		}
		assign(v.FieldByName(path[:end]), path[end:], value)
	}
}

// seen is what came of a request.
type seen struct {
	Start   *shim.StartRequest     `json:",omitempty"`
	Network network.SandboxRequest `json:",omitzero"`
	Volumes []volumetypes.Volume   `json:",omitempty"`
	Spec    any                    `json:",omitempty"`
	Later   string                 `json:",omitempty"`

	inspect  string
	networks string // as the record keeps them
}

// try makes and starts a container, with the field at path set or without.
func (s *setting) try(t *testing.T, path string, set bool) (string, *seen, error) {
	r := newRigIn(t, memory(t))
	r.nets.lenient = true
	q := &request{Config: container.Config{Image: "busybox", Cmd: []string{"sleep"}}}
	if s.with != nil {
		s.with(r, q)
	}
	if set {
		value := s.value
		if f, ok := value.(func(*rig) any); ok {
			value = f(r)
		}
		assign(reflect.ValueOf(q), path, value)
	}
	resp, err := r.Create(bg, CreateOptions{Name: "web", Config: &q.Config, HostConfig: &q.HostConfig, Networking: &q.Networking})
	if err != nil {
		return "", nil, err
	}
	c := r.index.ByID(resp.ID)
	got := &seen{}
	rec, err := r.files.Record(c.ID) // what a later daemon would know
	r.must(err)
	kept, err := json.Marshal(rec.Networks)
	r.must(err)
	got.networks = string(kept)
	if s.unstarted {
		sp, err := spec.Build(spec.Input{Config: rec.Config, Host: rec.HostConfig, BlockDevice: func(p string) (int64, int64, error) { return int64(len(p)), 1, nil }})
		if err != nil {
			return "", nil, err
		}
		got.Spec = sp.Linux.Resources
	} else if err := r.Start(bg, "web"); err != nil {
		return "", nil, err
	}
	if p := r.shim.procs[c.Key(1)]; p != nil {
		req := *p.req
		req.Key = shim.Key{}
		got.Start = &req
	}
	got.Network = r.nets.asked
	got.Volumes, _, err = r.volumes.List(bg, filter.Args{})
	r.must(err)
	for i := range got.Volumes {
		got.Volumes[i].CreatedAt = ""
	}
	if s.later != nil {
		got.Later = s.later(r, c)
	}
	i, err := r.Inspect(bg, "web", false)
	r.must(err)
	text, err := json.Marshal(struct{ A, B any }{i.Config, i.HostConfig})
	r.must(err)
	got.inspect = r.scrub(c.ID, string(text))
	text, err = json.Marshal(got)
	r.must(err)
	return r.scrub(c.ID, string(text)), got, nil
}

// memory is a directory where writing to the disk takes no time, if there is one.
func memory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "gantry-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// scrub takes out what differs between any two containers.
func (r *rig) scrub(id, text string) string {
	text = strings.NewReplacer(id, "ID", id[:12], "SHORT", r.dir, "DIR").Replace(text)
	return regexp.MustCompile(`[0-9a-f]{64}`).ReplaceAllString(text, "ANON")
}

func (s *setting) check(t *testing.T, path string) {
	base, was, err := s.try(t, path, false)
	if err != nil {
		if base = err.Error(); s.refused != "" {
			t.Fatalf("refused without it: %v", err)
		}
	}
	set, got, err := s.try(t, path, true)
	switch {
	case s.refused != "":
		if err == nil || !strings.Contains(err.Error(), s.refused) {
			t.Errorf("error %v, want %q", err, s.refused)
		}
	case err != nil:
		t.Errorf("it is refused: %v", err)
	case s.dropped != "":
		if set != base || was.networks != got.networks {
			t.Errorf("it is not dropped: %s", got.networks)
		}
	case s.shown != "":
		if set != base {
			t.Error("more than inspect knows of it")
		}
		if was.inspect == got.inspect {
			t.Error("inspect does not show it")
		}
	case set == base:
		t.Error("it is ignored: nothing that is asked for differs")
	}
}

// TestSettings walks all fields of a create request: each is honoured or refused by name. A field
// that a new version of the API brings fails here until it is.
func TestSettings(t *testing.T) {
	cases := settings()
	for _, path := range fieldsOf(reflect.TypeFor[request](), "") {
		s, ok := cases[path]
		delete(cases, path)
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			if !ok {
				t.Fatal("nobody says what follows from it: honour it, or refuse it by name")
			}
			s.check(t, path)
		})
	}
	for path := range cases {
		t.Errorf("%s: the API has no such field", path)
	}
}

func settings() map[string]*setting {
	all := map[string]*setting{}
	for _, list := range []map[string]*setting{configSettings(), hostSettings(), resourceSettings(), mountSettings(), networkSettings()} {
		maps.Copy(all, list)
	}
	return all
}

func configSettings() map[string]*setting {
	checked := func(_ *rig, q *request) {
		q.Config.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "x"}, Interval: time.Hour}
	}
	check := func(_ *rig, c *store.Container) string { return fmt.Sprint(health.Of(c.Record().Config)) }
	client := "says what the client that makes the container attaches"
	list := map[string]*setting{
		"Hostname":     {value: "h1"},
		"Domainname":   {value: "d1"},
		"User":         {value: "5"},
		"AttachStdin":  {value: true, shown: client},
		"AttachStdout": {value: true, shown: client},
		"AttachStderr": {value: true, shown: client},
		"ExposedPorts": {value: networktypes.PortSet{networktypes.MustParsePort("81/tcp"): {}}},
		"Tty":          {value: true},
		"OpenStdin":    {value: true},
		"StdinOnce":    {value: true},
		"Env":          {value: []string{"A=b"}},
		"Cmd":          {value: []string{"other"}},
		"ArgsEscaped":  {value: true, shown: "it is Windows's, and images of Linux have it set"},
		"Image":        {value: "other", refused: "No such image: other"},
		"Volumes":      {value: map[string]struct{}{"/v": {}}},
		"WorkingDir":   {value: "/w"},
		"Entrypoint":   {value: []string{"e"}},
		"OnBuild":      {value: []string{"RUN x"}, shown: "builds read it from images"},
		"Labels": {value: map[string]string{"k": "v"}, later: func(r *rig, _ *store.Container) string {
			l, err := r.List(bg, ListOptions{Filters: filter.Args{"label": {"k=v"}}})
			return fmt.Sprint(len(l), err)
		}},
		"NetworkDisabled": {value: true},
		"StopSignal": {value: "SIGUSR1", later: func(r *rig, c *store.Container) string {
			return fmt.Sprint(r.Stop(bg, c.ID, StopOptions{}), r.shim.signals)
		}},
		"StopTimeout": {value: 77, later: func(r *rig, c *store.Container) string {
			_, after, err := r.validate.Stop(c.Record().Config, "", nil)
			return fmt.Sprint(after, err)
		}},
		"Shell":                     {value: []string{"bash", "-c"}, with: checked, later: check},
		"Healthcheck.Test":          {value: []string{"CMD", "y"}, later: check},
		"Healthcheck.Interval":      {value: time.Minute, with: checked, later: check},
		"Healthcheck.Timeout":       {value: time.Minute, with: checked, later: check},
		"Healthcheck.StartPeriod":   {value: time.Minute, with: checked, later: check},
		"Healthcheck.StartInterval": {value: time.Minute, with: checked, later: check},
		"Healthcheck.Retries":       {value: 7, with: checked, later: check},
	}
	return below("Config.", list)
}

func below(prefix string, list map[string]*setting) map[string]*setting {
	out := map[string]*setting{}
	for name, s := range list {
		out[prefix+name] = s
	}
	return out
}

func hostSettings() map[string]*setting {
	state := func(_ *rig, c *store.Container) string { v := c.View(); return fmt.Sprint(v.Policy, v.AutoRemove) }
	port := func(_ *rig, q *request) {
		q.HostConfig.PortBindings = networktypes.PortMap{networktypes.MustParsePort("80/tcp"): {{HostPort: "1000"}}}
	}
	other := func(r *rig, _ *request) {
		_, err := r.Create(bg, CreateOptions{Name: "other", Config: &container.Config{Image: "busybox", Volumes: map[string]struct{}{"/o": {}}}})
		r.must(err)
		r.must(r.Start(bg, "other"))
	}
	return below("HostConfig.", map[string]*setting{
		"Binds":                           {value: func(r *rig) any { return []string{r.dir + "/bind:/b"} }},
		"ContainerIDFile":                 {value: "/x", shown: "the client writes it"},
		"LogConfig.Type":                  {value: "none"},
		"LogConfig.Config":                {value: map[string]string{"max-size": "1m"}},
		"NetworkMode":                     {value: "none"},
		"PortBindings{}[].HostIP":         {value: netip.MustParseAddr("127.0.0.1"), with: port},
		"PortBindings{}[].HostPort":       {value: "2000", with: port},
		"RestartPolicy.Name":              {value: "always", later: state},
		"RestartPolicy.MaximumRetryCount": {value: 3, later: state, with: func(_ *rig, q *request) { q.HostConfig.RestartPolicy.Name = "on-failure" }},
		"AutoRemove":                      {value: true, later: state},
		"VolumeDriver": {value: "paper", refused: "paper", with: func(_ *rig, q *request) {
			q.Config.Volumes = map[string]struct{}{"/v": {}}
		}},
		"VolumesFrom":     {value: []string{"other"}, with: other},
		"ConsoleSize":     {value: [2]uint{3, 4}},
		"Annotations":     {value: map[string]string{"a": "b"}},
		"CapAdd":          {value: []string{"NET_ADMIN"}},
		"CapDrop":         {value: []string{"CHOWN"}},
		"CgroupnsMode":    {value: "host"},
		"DNS":             {value: []netip.Addr{netip.MustParseAddr("9.9.9.9")}},
		"DNSOptions":      {value: []string{"ndots:1"}},
		"DNSSearch":       {value: []string{"example"}},
		"ExtraHosts":      {value: []string{"h:1.2.3.4"}},
		"GroupAdd":        {value: []string{"7"}},
		"IpcMode":         {value: "host"},
		"Cgroup":          {value: "container:x", refused: "cgroup"},
		"Links":           {value: []string{"other:o"}, with: other},
		"OomScoreAdj":     {value: 5},
		"PidMode":         {value: "host"},
		"Privileged":      {value: true},
		"PublishAllPorts": {value: true},
		"ReadonlyRootfs":  {value: true},
		"SecurityOpt":     {value: []string{"no-new-privileges"}},
		"StorageOpt":      {value: map[string]string{"size": "1G"}, refused: "storage options"},
		"Tmpfs":           {value: map[string]string{"/t": ""}},
		"UTSMode":         {value: "host"},
		"UsernsMode":      {value: "private", refused: "invalid userns mode: private"},
		"ShmSize":         {value: 1 << 20},
		"Sysctls":         {value: map[string]string{"net.core.somaxconn": "9"}},
		"Runtime":         {value: "kata", refused: "unknown or invalid runtime name: kata"},
		"Umask":           {value: 0o77},
		"Isolation":       {value: "hyperv", refused: "invalid isolation 'hyperv' on linux"},
		"MaskedPaths":     {value: []string{"/x"}},
		"ReadonlyPaths":   {value: []string{"/x"}},
		"Init":            {value: true},
	})
}

func resourceSettings() map[string]*setting {
	limit := func(name string) func(*rig, *request) { // one on /dev/vda, which is not here
		return func(_ *rig, q *request) {
			if name == "BlkioWeightDevice" {
				q.HostConfig.BlkioWeightDevice = []*blkiodev.WeightDevice{{Path: "/dev/vda", Weight: 100}}
				return
			}
			assign(reflect.ValueOf(q), "HostConfig."+name, []*blkiodev.ThrottleDevice{{Path: "/dev/vda", Rate: 100}})
		}
	}
	device := func(_ *rig, q *request) {
		q.HostConfig.Devices = []container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/a", CgroupPermissions: "rwm"}}
	}
	ulimit := func(_ *rig, q *request) {
		q.HostConfig.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}}
	}
	list := map[string]*setting{
		"CPUShares":                   {value: 5},
		"Memory":                      {value: 64 << 20},
		"NanoCPUs":                    {value: 5e8},
		"CgroupParent":                {value: "/p"},
		"BlkioWeight":                 {value: 300},
		"CPUPeriod":                   {value: 50000},
		"CPUQuota":                    {value: 50000},
		"CPURealtimePeriod":           {value: 5},
		"CPURealtimeRuntime":          {value: 5},
		"CpusetCpus":                  {value: "0"},
		"CpusetMems":                  {value: "0"},
		"Devices[].PathOnHost":        {value: "/dev/zero", with: device},
		"Devices[].PathInContainer":   {value: "/dev/b", with: device},
		"Devices[].CgroupPermissions": {value: "r", with: device},
		"DeviceCgroupRules":           {value: []string{"c 1:3 r"}},
		"MemoryReservation":           {value: 64 << 20},
		"MemorySwap":                  {value: 128 << 20, with: func(_ *rig, q *request) { q.HostConfig.Memory = 100 << 20 }},
		"MemorySwappiness":            {value: 5},
		"OomKillDisable":              {value: true},
		"PidsLimit":                   {value: 5},
		"Ulimits[].Name":              {value: "core", with: ulimit},
		"Ulimits[].Soft":              {value: 5, with: ulimit},
		"Ulimits[].Hard":              {value: 50, with: ulimit},
		"CPUCount":                    {value: 2, refused: "CpuCount"},
		"CPUPercent":                  {value: 2, refused: "CpuPercent"},
		"IOMaximumIOps":               {value: 2, refused: "Maximum IO IOps"},
		"IOMaximumBandwidth":          {value: 2, refused: "Maximum IO Bandwidth"},
	}
	for _, name := range []string{"BlkioWeightDevice", "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"} {
		rate := "Rate"
		if name == "BlkioWeightDevice" {
			rate = "Weight"
		}
		list[name+"[].Path"] = &setting{value: "/dev/other", with: limit(name), unstarted: true}
		list[name+"[]."+rate] = &setting{value: 200, with: limit(name), unstarted: true}
	}
	for name, value := range map[string]any{
		"Driver": "gpu", "Count": 1, "DeviceIDs": []string{"0"}, "Capabilities": [][]string{{"gpu"}}, "Options": map[string]string{"a": "b"},
	} {
		list["DeviceRequests[]."+name] = &setting{value: value, refused: "could not select device driver"}
	}
	return below("HostConfig.", list)
}

func mountSettings() map[string]*setting {
	mounted := func(m mount.Mount) func(*rig, *request) {
		return func(r *rig, q *request) {
			m := m // requests share nothing
			if m.BindOptions != nil {
				options := *m.BindOptions
				m.BindOptions = &options
			}
			for _, dir := range []string{"one", "two"} {
				r.must(os.MkdirAll(filepath.Join(r.dir, dir), 0o755))
			}
			r.must(os.MkdirAll(filepath.Join(r.images.root, "data/file"), 0o755))
			if m.Type == mount.TypeBind {
				m.Source = filepath.Join(r.dir, "one")
			}
			m.Target = "/data"
			q.HostConfig.Mounts = []mount.Mount{m}
		}
	}
	bind := mounted(mount.Mount{Type: mount.TypeBind})
	readOnly := mounted(mount.Mount{Type: mount.TypeBind, ReadOnly: true})
	slave := mounted(mount.Mount{Type: mount.TypeBind, ReadOnly: true, BindOptions: &mount.BindOptions{Propagation: mount.PropagationRSlave}})
	vol := mounted(mount.Mount{Type: mount.TypeVolume, Source: "vol"})
	tmpfs := mounted(mount.Mount{Type: mount.TypeTmpfs})
	missing := func(r *rig, q *request) {
		bind(r, q)
		q.HostConfig.Mounts[0].Source = filepath.Join(r.dir, "missing")
	}
	inVolume := func(r *rig, _ *store.Container) string {
		v, err := r.volumes.Inspect(bg, "vol")
		r.must(err)
		entries, err := os.ReadDir(v.Mountpoint)
		return fmt.Sprint(len(entries), err)
	}
	return below("HostConfig.Mounts[].", map[string]*setting{
		"Type":        {value: "tmpfs", with: mounted(mount.Mount{Type: mount.TypeVolume})},
		"Source":      {value: func(r *rig) any { return filepath.Join(r.dir, "two") }, with: bind},
		"Target":      {value: "/other", with: bind},
		"ReadOnly":    {value: true, with: bind},
		"Consistency": {value: "cached", with: bind, shown: "a mount on Linux is consistent, which all of its values allow"},

		"BindOptions.Propagation":            {value: "rshared", with: bind},
		"BindOptions.NonRecursive":           {value: true, with: bind},
		"BindOptions.CreateMountpoint":       {value: true, with: missing},
		"BindOptions.ReadOnlyNonRecursive":   {value: true, with: readOnly},
		"BindOptions.ReadOnlyForceRecursive": {value: true, with: slave, refused: "ReadOnlyForceRecursive"},
		"VolumeOptions.NoCopy":               {value: true, with: vol, later: inVolume},
		"VolumeOptions.Labels":               {value: map[string]string{"k": "v"}, with: vol},
		"VolumeOptions.Subpath":              {value: "x", with: vol, refused: "subpaths of volumes"},
		"VolumeOptions.DriverConfig.Name":    {value: "paper", with: vol, refused: "paper"},
		"VolumeOptions.DriverConfig.Options": {value: map[string]string{"type": "tmpfs"}, with: vol, refused: "options of the local volume driver"},
		"ImageOptions.Subpath":               {value: "x", with: bind, refused: "ImageOptions"},
		"TmpfsOptions.SizeBytes":             {value: 1 << 20, with: tmpfs},
		"TmpfsOptions.Mode":                  {value: 0o700, with: tmpfs},
		"TmpfsOptions.Options":               {value: [][]string{{"exec"}}, with: tmpfs},
		"ClusterOptions":                     {value: &mount.ClusterOptions{}, with: bind, refused: "ClusterOptions"},
	})
}

func networkSettings() map[string]*setting {
	on := func(_ *rig, q *request) {
		q.Networking.EndpointsConfig = map[string]*networktypes.EndpointSettings{"bridge": {}}
	}
	four, six := netip.MustParseAddr("1.2.3.4"), netip.MustParseAddr("fd00::1")
	list := map[string]*setting{
		"IPAMConfig.IPv4Address":  {value: four},
		"IPAMConfig.IPv6Address":  {value: six},
		"IPAMConfig.LinkLocalIPs": {value: []netip.Addr{four}},
		"Links":                   {value: []string{"a:b"}},
		"Aliases":                 {value: []string{"a"}},
		"DriverOpts":              {value: map[string]string{"k": "v"}},
		"GwPriority":              {value: 5},
		"MacAddress":              {value: networktypes.HardwareAddr{2, 0, 0, 0, 0, 1}},
	}
	for name, value := range map[string]any{
		"NetworkID": "n", "EndpointID": "e", "Gateway": four, "IPAddress": four, "IPPrefixLen": 8, "IPv6Gateway": six,
		"GlobalIPv6Address": six, "GlobalIPv6PrefixLen": 64, "DNSNames": []string{"a"},
	} {
		list[name] = &setting{value: value, dropped: "a connected endpoint has it; who copies inspect's answer sends it"}
	}
	for _, s := range list {
		s.with = on
	}
	return below("Networking.EndpointsConfig{}.", list)
}

// TestSettingsTest gives the test types whose answer is known, so that a hole in it shows.
func TestSettingsTest(t *testing.T) {
	type inner struct{ A, B int }
	type outer struct {
		inner
		P *inner
		L []*inner
		M map[string][]inner
		S []string
		N map[string]string
		U units.Ulimit
	}
	want := []string{"A", "B", "P.A", "P.B", "L[].A", "L[].B", "M{}[].A", "M{}[].B", "S", "N", "U.Name", "U.Hard", "U.Soft"}
	if got := fieldsOf(reflect.TypeFor[outer](), ""); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	o := &outer{M: map[string][]inner{"k": nil}}
	for i, path := range []string{"A", "P.B", "L[].A", "M{}[].B"} {
		assign(reflect.ValueOf(o), path, i+1)
	}
	if o.A != 1 || o.P.B != 2 || o.L[0].A != 3 || o.M["k"][0].B != 4 {
		t.Errorf("%+v", o)
	}
	if _, _, err := (&setting{value: "x"}).try(t, "HostConfig.Runtime", true); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refusal is not seen: %v", err)
	}
}
