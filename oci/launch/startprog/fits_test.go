package startprog

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gantry/gantry/oci/launch/nsenter"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// TestExpressibleKnowsTheMessage: a field that the message for init has gained is one that either
// the program does what it asks for, or expressible refuses. Then it belongs into this list.
func TestExpressibleKnowsTheMessage(t *testing.T) {
	for typ, known := range map[reflect.Type]string{
		reflect.TypeFor[initmsg.Message](): "ID Exec WaitGo Reaper Join NewCgroupNS NewTimeNS TimeOffsets TakeRoot LoopbackUp Hostname Domainname Root Mounts " +
			"SetupDev Devices MaskedPaths ReadonlyPaths Sysctl Process Extra",
		reflect.TypeFor[initmsg.Root](): "Path Lower Upper Work Volatile Readonly Propagation PropagationRec Own",
		reflect.TypeFor[initmsg.Mount](): "Kind Type Source Dest Set Clear RecSet RecClear Propagation PropagationRec SourceFD Index Recursive NoSymlinks CopyUp " +
			"Data Flags Binds",
		reflect.TypeFor[initmsg.Device](): "Path Type Major Minor Mode UID GID",
		reflect.TypeFor[initmsg.Process](): "Terminal Rows Cols Args Env Cwd UID GID Groups NoGroups HasUmask Umask Caps NoNewPrivs Rlimits Seccomp SeccompFlags " +
			"AppArmor SELinux Tuning Notify",
		reflect.TypeFor[initmsg.Extra](): "StartFD Preserve NoPivot NoNewKeyring HookSync StateCreating StateCreated CreateContainer StartContainer HostMountFD",
	} {
		t.Run(fmt.Sprint(typ), func(t *testing.T) {
			var have []string
			for i := range typ.NumField() {
				have = append(have, typ.Field(i).Name)
			}
			want := strings.Fields(known)
			slices.Sort(have)
			slices.Sort(want)
			if !slices.Equal(have, want) {
				t.Errorf("%s has the fields %v, known are %v", typ, have, want)
			}
		})
	}
}

// TestExpressible: what only init can do is not expressible.
func TestExpressible(t *testing.T) {
	plain := func() *Start {
		return &Start{Flags: unix.CLONE_NEWNS | unix.CLONE_NEWPID, Message: &initmsg.Message{Mounts: []initmsg.Mount{{Kind: initmsg.KindBind}}}}
	}
	if !expressible(plain()) {
		t.Error("nothing is expressible")
	}
	for name, change := range map[string]func(*Start){
		"exec":        func(s *Start) { s.Message.Exec = true },
		"user":        func(s *Start) { s.Message.TakeRoot = true },
		"time":        func(s *Start) { s.Message.NewTimeNS = true },
		"preserve":    func(s *Start) { s.Message.Extra.Preserve = []uint32{5} },
		"no pivot":    func(s *Start) { s.Message.Extra.NoPivot = true },
		"hooks":       func(s *Start) { s.Message.Extra.HookSync = true },
		"hook inside": func(s *Start) { s.Message.Extra.CreateContainer = []initmsg.Hook{{}} },
		"start hook":  func(s *Start) { s.Message.Extra.StartContainer = []initmsg.Hook{{}} },
		"host mounts": func(s *Start) { s.Message.Extra.HostMountFD = 7 },
		"apparmor":    func(s *Start) { s.Message.Process.AppArmor = "x" },
		"selinux":     func(s *Start) { s.Message.Process.SELinux = "x" },
		"notify":      func(s *Start) { s.Message.Process.SeccompFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER },
		"groups":      func(s *Start) { s.Message.Process.NoGroups = true },
		"tuning":      func(s *Start) { s.Message.Process.Tuning.HasPersonality = true },
		"copy up":     func(s *Start) { s.Message.Mounts[0].CopyUp = true },
		"mapped":      func(s *Start) { s.Message.Mounts[0].SourceFD = 6 },
		"no mounts":   func(s *Start) { s.Flags = unix.CLONE_NEWPID },
		"new user":    func(s *Start) { s.Flags |= unix.CLONE_NEWUSER },
		"join pids":   func(s *Start) { s.Joins = []nsenter.Join{{Flags: unix.CLONE_NEWPID}} },
		"join user":   func(s *Start) { s.Joins = []nsenter.Join{{Flags: unix.CLONE_NEWUSER}} },
		"join mounts": func(s *Start) { s.Joins = []nsenter.Join{{Flags: unix.CLONE_NEWNS}} },
	} {
		t.Run(name, func(t *testing.T) {
			s := plain()
			change(s)
			if expressible(s) {
				t.Error(name)
			}
		})
	}
}

// TestPlanRefuses: strings that no system call takes, and more than a program has room for.
func TestPlanRefuses(t *testing.T) {
	for name, m := range map[string]initmsg.Message{
		"zero byte": {MaskedPaths: []string{"/a\x00b"}},
		"registers": {Mounts: slices.Repeat([]initmsg.Mount{{Kind: initmsg.KindBind, Source: "/", Dest: "/x", Propagation: unix.MS_SHARED}}, 300)},
		"device":    {SetupDev: true, Devices: []initmsg.Device{{Path: "/dev/x", Type: 'x'}}},
	} {
		t.Run(name, func(t *testing.T) {
			m.ID, m.Process.Args, m.Process.Cwd, m.Root.Path = "id", []string{"x"}, "/", "/"
			s := &Start{Message: &m, Flags: unix.CLONE_NEWNS, StartFD: -1}
			if f, err := s.plan(100); err == nil {
				f.Close()
				t.Errorf("%s: planned", name)
			}
		})
	}
	// What is large is no reason.
	m := initmsg.Message{ID: "id"}
	m.Process.Args, m.Process.Cwd, m.Root.Path = []string{"x"}, "/", "/"
	m.Process.Env = slices.Repeat([]string{"A=" + strings.Repeat("x", 1000)}, 500)
	m.Mounts = slices.Repeat([]initmsg.Mount{{Kind: initmsg.KindBind, Source: "/", Dest: "/" + strings.Repeat("d/", 50) + "x", Propagation: unix.MS_PRIVATE}}, 200)
	for range 1000 {
		m.MaskedPaths = append(m.MaskedPaths, "/proc/"+strings.Repeat("p/", 100)+"x")
	}
	f, err := (&Start{Message: &m, Flags: unix.CLONE_NEWNS, StartFD: -1}).plan(100)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}
