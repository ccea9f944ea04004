package rootfs

import (
	"reflect"
	"slices"
	"testing"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

func kinds(steps []Step) (k []Kind) {
	for i := range steps {
		k = append(k, steps[i].Kind)
	}
	return k
}

func TestSteps(t *testing.T) {
	bare := []Kind{SetPropagation, OpenSources, MakeTree, MakePrivate, AttachTree, RunHooks, ChangeRoot}
	for name, row := range map[string]struct {
		change func(*initmsg.Message)
		at     int // of the first that is not in bare
		want   []Kind
	}{
		"nothing":    {func(*initmsg.Message) {}, 5, nil},
		"mounts":     {func(m *initmsg.Message) { m.Mounts = make([]initmsg.Mount, 2) }, 5, []Kind{Mount, Mount}},
		"directory":  {func(m *initmsg.Message) { m.Process.Cwd = "/x" }, 5, []Kind{MakeCwd}},
		"masks":      {func(m *initmsg.Message) { m.MaskedPaths = []string{"/a", "/b"} }, 5, []Kind{OpenMasks, MaskPath, MaskPath, CloseMasks}},
		"read-only":  {func(m *initmsg.Message) { m.ReadonlyPaths = []string{"/a"} }, 5, []Kind{ProtectPath}},
		"own":        {func(m *initmsg.Message) { m.Root.Own = unix.MS_SHARED }, 7, []Kind{SetRootPropagation}},
		"root":       {func(m *initmsg.Message) { m.Root.Readonly = true }, 7, []Kind{ProtectRoot}},
		"dev":        {func(m *initmsg.Message) { m.SetupDev = true }, 5, []Kind{OpenDev, MakeLink, MakeLink, MakeLink, MakeLink, MakeLink, CloseDev}},
		"dev filled": {func(m *initmsg.Message) { m.SetupDev, m.Devices = true, make([]initmsg.Device, 1) }, 5, []Kind{OpenDev, MakeDevice, MakeLink, MakeLink, MakeLink, MakeLink, MakeLink, CloseDev}},
		"dev read-only": {func(m *initmsg.Message) {
			m.SetupDev, m.Mounts = true, []initmsg.Mount{{Dest: "/dev", Set: unix.MOUNT_ATTR_RDONLY}}
		}, 5, []Kind{Mount, OpenDev, MakeLink, MakeLink, MakeLink, MakeLink, MakeLink, ProtectDev, CloseDev}},
	} {
		t.Run(name, func(t *testing.T) {
			m := &initmsg.Message{}
			m.Process.Cwd = "/"
			row.change(m)
			if got, want := kinds(Steps(m, false)), slices.Insert(slices.Clone(bare), row.at, row.want...); !slices.Equal(got, want) {
				t.Errorf("steps %v, want %v", got, want)
			}
		})
	}
}

// TestStepsRefer: a step says what it is about.
func TestStepsRefer(t *testing.T) {
	m := &initmsg.Message{SetupDev: true, Mounts: make([]initmsg.Mount, 2), Devices: make([]initmsg.Device, 1), MaskedPaths: []string{"/m"}, ReadonlyPaths: []string{"/r"}}
	m.Process.Cwd = "/w"
	core := false
	for _, s := range Steps(m, true) {
		switch s.Kind {
		case Mount:
			if s.Mount != &m.Mounts[s.Index] {
				t.Error("mount", s.Index)
			}
		case MakeDevice:
			if s.Device != &m.Devices[0] {
				t.Error("device")
			}
		case MakeLink:
			core = core || s.Link == Link{"core", Kcore}
		case MaskPath, ProtectPath, MakeCwd:
			if want := map[Kind]string{MaskPath: "/m", ProtectPath: "/r", MakeCwd: "/w"}[s.Kind]; s.Path != want {
				t.Errorf("path %q, want %q", s.Path, want)
			}
		}
	}
	if !core {
		t.Error("no link /dev/core on a host that has /proc/kcore")
	}
}

func TestMountFS(t *testing.T) {
	kv := func(k, v string) initmsg.KV { return initmsg.KV{Key: k, Value: v} }
	const ro = unix.MOUNT_ATTR_RDONLY
	for name, row := range map[string]struct {
		m    initmsg.Mount
		want FS
		mode bool
		late uint64
	}{
		"proc":     {initmsg.Mount{Type: "proc", Source: "proc", Dest: "/proc"}, FS{Type: "proc", Data: []initmsg.KV{kv("source", "proc")}}, false, 0},
		"tmpfs":    {initmsg.Mount{Type: "tmpfs", Dest: "/t", Set: ro, Data: []initmsg.KV{kv("size", "1m")}, Flags: []string{"noswap"}}, FS{Type: "tmpfs", Attrs: ro, Data: []initmsg.KV{kv("size", "1m")}, Flags: []string{"noswap"}}, true, 0},
		"its mode": {initmsg.Mount{Type: "tmpfs", Dest: "/t", Data: []initmsg.KV{kv("mode", "700")}}, FS{Type: "tmpfs", Data: []initmsg.KV{kv("mode", "700")}}, false, 0},
		"dev":      {initmsg.Mount{Type: "tmpfs", Dest: "/dev", Set: ro | unix.MOUNT_ATTR_NOSUID}, FS{Type: "tmpfs", Attrs: unix.MOUNT_ATTR_NOSUID}, true, ro},
		"copied":   {initmsg.Mount{Type: "tmpfs", Dest: "/t", Set: ro, CopyUp: true}, FS{Type: "tmpfs"}, true, ro},
	} {
		t.Run(name, func(t *testing.T) {
			got, mode, late := MountFS(&row.m)
			if !reflect.DeepEqual(got, row.want) || mode != row.mode || late != row.late {
				t.Errorf("%+v %v %x", got, mode, late)
			}
		})
	}
}

func TestNode(t *testing.T) {
	for _, row := range []struct {
		d         initmsg.Device
		dir, base string
		typ       uint32
	}{
		{initmsg.Device{Path: "/dev/null", Type: 'c'}, "/dev", "null", unix.S_IFCHR},
		{initmsg.Device{Path: "/dev/net/tun", Type: 'c'}, "/dev/net", "tun", unix.S_IFCHR},
		{initmsg.Device{Path: "/x", Type: 'b'}, "/", "x", unix.S_IFBLK},
		{initmsg.Device{Path: "/dev/p", Type: 'p'}, "/dev", "p", unix.S_IFIFO},
		{initmsg.Device{Path: "/dev/p", Type: 'x'}, "/dev", "p", 0},
	} {
		t.Run(row.d.Path, func(t *testing.T) {
			if dir, base, typ := Node(&row.d); dir != row.dir || base != row.base || typ != row.typ {
				t.Errorf("%s %s %o", dir, base, typ)
			}
		})
	}
}

func TestCgroupFS(t *testing.T) {
	c := CgroupFS(&initmsg.Mount{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC, Binds: []initmsg.KV{{Key: "cpu", Value: "@cpu,cpuacct"}, {Key: "memory", Value: "/m"}}})
	if c.FS.Attrs != unix.MOUNT_ATTR_NOEXEC || c.Late != unix.MOUNT_ATTR_RDONLY || c.Set != unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOEXEC ||
		!slices.Equal(c.Links, []Link{{"cpu", "cpu,cpuacct"}}) || !slices.Equal(c.Binds, []initmsg.KV{{Key: "memory", Value: "/m"}}) {
		t.Errorf("%+v", c)
	}
}
