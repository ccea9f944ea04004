package oci_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// lookAround is what a container's first process can see of how it was made, beyond look.
const lookAround = look + `
cut -d' ' -f4- /proc/self/mountinfo | sed 's/\(shared\|master\):[0-9]*/\1/'
find /dev ! -path '/dev/pts/[0-9]*' | sort | xargs stat -c '%A %u %g %t:%T %N'
find /sys/fs/cgroup -maxdepth 2 | sort | head -300
stat -c '%A %u %g %t:%T %N' / /home /vol /new /etc /etc/* /w /w/* 2>&1
grep -q '_ses\.same' /proc/keys && echo key ring
cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax
ip addr | grep -A1 lo:; tr '\0' ' ' </proc/1/cmdline; cat /proc/1/comm
[ -c /proc/interrupts ] && cat /proc/interrupts; cat /vol/f /new/f 2>&1; ls /sys/firmware /proc/acpi`

// startCases are containers of all kinds that a program of system calls makes.
func startCases(t testing.TB, root string) map[string]func(*box) {
	vol := t.TempDir()
	must(t, os.WriteFile(vol+"/f", []byte("file\n"), 0o644))
	must(t, os.MkdirAll(root+"/home/user", 0o750))
	must(t, os.Symlink("../../vol", root+"/etc/deep"))
	must(t, os.MkdirAll(root+"/tmp1", 0o751))
	layer := t.TempDir()
	must(t, os.WriteFile(layer+"/inlayer", nil, 0o600))
	process := func(f func(*specs.Process)) func(*box) {
		return func(b *box) { f(b.opts.Spec.Process) }
	}
	mounts := func(ms ...specs.Mount) func(*box) {
		return func(b *box) { b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, ms...) }
	}
	without := func(ns ...specs.LinuxNamespaceType) func(*box) {
		return func(b *box) {
			l := b.opts.Spec.Linux
			b.opts.Spec.Hostname = ""
			var left []specs.LinuxNamespace
			for _, n := range l.Namespaces {
				if !strings.Contains(fmt.Sprint(ns), string(n.Type)) {
					left = append(left, n)
				}
			}
			l.Namespaces = left
		}
	}
	five, mode := uint32(5), os.FileMode(0o600)
	umask, score := uint32(0o077), 77
	pids, memory := int64(30), int64(64<<20)
	return map[string]func(*box){
		"docker": func(*box) {},
		"user": process(func(p *specs.Process) {
			p.User = specs.User{UID: 1000, GID: 50, AdditionalGids: []uint32{60, 7}}
			p.Cwd = "/home/user"
		}),
		"nobody": process(func(p *specs.Process) { p.User = specs.User{UID: 77}; p.Env = append(p.Env, "HOME="); p.Cwd = "/w/x/y" }),
		"home":   process(func(p *specs.Process) { p.Env = append(p.Env, "HOME=/h", "A=1", "A=2") }),
		"limits": process(func(p *specs.Process) {
			p.NoNewPrivileges, p.OOMScoreAdj, p.User.Umask = true, &score, &umask
			p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE"}}
		}),
		"ambient": process(func(p *specs.Process) {
			p.User.UID = 1000
			c := &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: []string{"CAP_NET_RAW"}, Permitted: []string{"CAP_NET_RAW"}, Ambient: []string{"CAP_NET_RAW"}}
			p.Capabilities = c
		}),
		"privileged": process(func(p *specs.Process) {
			all := oci.CapabilityNames()
			p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		}),
		"seccomp": func(b *box) {
			b.opts.Spec.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
				{Names: []string{"mkdir", "execveat", "statx", "accept4", "sendmsg"}, Action: specs.ActErrno},
			}}
		},
		"overlay": func(b *box) {
			dir := t.TempDir()
			must(t, os.Mkdir(dir+"/u", 0o755))
			must(t, os.Mkdir(dir+"/w", 0o755))
			b.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{layer, root}, Upper: dir + "/u", Work: dir + "/w"}}
		},
		"volatile": func(b *box) {
			dir := t.TempDir()
			must(t, os.Mkdir(dir+"/u", 0o755))
			must(t, os.Mkdir(dir+"/w", 0o755))
			b.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{layer, root}, Upper: dir + "/u", Work: dir + "/w", Volatile: true}}
		},
		"read-only": func(b *box) {
			b.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{layer, root}}, Readonly: true}
			b.opts.Spec.Mounts[1].Options = append(b.opts.Spec.Mounts[1].Options, "ro")
		},
		"binds": mounts(
			specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: []string{"rbind", "rprivate"}},
			specs.Mount{Destination: "/new", Type: "bind", Source: vol, Options: []string{"rbind", "ro", "rprivate"}},
			specs.Mount{Destination: "/etc/new/file", Type: "bind", Source: vol + "/f", Options: []string{"bind", "rprivate", "noexec"}},
			specs.Mount{Destination: "/etc/hostname", Type: "bind", Source: vol + "/f", Options: []string{"bind"}},
			specs.Mount{Destination: "/etc/deep/down", Type: "bind", Source: vol, Options: []string{"rbind", "rslave", "rro"}},
			specs.Mount{Destination: "/w/proc", Type: "bind", Source: "/proc/sys", Options: []string{"rbind", "private"}},
			specs.Mount{Destination: "/w/shared", Type: "bind", Source: vol, Options: []string{"bind", "shared", "nosuid"}},
		),
		"tmpfs": mounts(
			specs.Mount{Destination: "/tmp1", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "noexec", "size=1m"}},
			specs.Mount{Destination: "/etc/none", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/tmp", Type: "tmpfs", Options: []string{"ro", "nr_inodes=20", "sync"}},
		),
		"devices": func(b *box) {
			b.opts.Spec.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, FileMode: &mode, UID: &five, GID: &five},
				{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200},
				{Path: "/dev/pipe", Type: "p"},
				{Path: "/dev/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode},
			}
			b.opts.Spec.Linux.Resources.Devices = append(b.opts.Spec.Linux.Resources.Devices, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"})
		},
		"sysctl": func(b *box) {
			b.opts.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"}
			b.opts.Spec.Domainname = "example.org"
		},
		"no masks":    func(b *box) { b.opts.Spec.Linux.MaskedPaths, b.opts.Spec.Linux.ReadonlyPaths = nil, nil },
		"host all":    without(specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.CgroupNamespace),
		"shared":      func(b *box) { b.opts.Spec.Linux.RootfsPropagation = "shared" },
		"reaper":      func(b *box) { b.opts.InitReaper = true },
		"no key ring": func(b *box) { b.opts.NoNewKeyring = true; b.opts.Spec.Linux.MaskedPaths = nil },
		"resources": func(b *box) {
			b.opts.Spec.Linux.Resources.Pids, b.opts.Spec.Linux.Resources.Memory = &specs.LinuxPids{Limit: &pids}, &specs.LinuxMemory{Limit: &memory}
		},
		"bare": func(b *box) {
			b.opts.Spec.Mounts = b.opts.Spec.Mounts[:1]
			b.opts.Spec.Linux.CgroupsPath = "/gantry-test/" + b.opts.ID
		},
	}
}

func TestStartWaysAreTheSame(t *testing.T) {
	for name := range startCases(t, newRootfs(t)) {
		t.Run(name, func(t *testing.T) {
			var outs [2]string
			for i, w := range ways {
				root := newRootfs(t) // what a start makes there must not help the next
				must(t, os.WriteFile(root+"/bin/look", []byte("#!/bin/sh\n"+lookAround), 0o755))
				b := newBox(root, "sh", "/bin/look", "arg one", "")
				b.opts.ID = "same"
				startCases(t, root)[name](b)
				b.opts.Fresh = w.fresh
				p, out, err := b.start(t)
				must(t, err)
				_, byFD := kernelSince(t, 6, 7)
				want := !w.fresh && oci.SysprogWorks() && (byFD || b.opts.Rootfs.Overlay == nil)
				if oci.SkippedInit(p) != want {
					t.Errorf("without init: %v, since %v", oci.SkippedInit(p), oci.Refused(p))
				}
				if len(p.Warnings) != 0 {
					t.Errorf("%q", p.Warnings)
				}
				wait(t, p)
				outs[i] = strings.ReplaceAll(strings.ReplaceAll(out(), b.opts.Spec.Linux.CgroupsPath, "CGROUP"), root, "ROOT")
				must(t, oci.DeleteCgroup(p.Cgroup))
			}
			sameLines(t, outs[0], outs[1], 120)
		})
	}
}

// sameLines compares what was seen of a process started by sysprog and by init.
func sameLines(t *testing.T, direct, fresh string, least int) {
	t.Helper()
	a, z := strings.Split(tidy(direct), "\n"), strings.Split(tidy(fresh), "\n")
	for i := range max(len(a), len(z)) {
		if i >= len(a) || i >= len(z) || a[i] != z[i] {
			t.Fatalf("line %d differs: %q, through init %q; seen:\n%s", i, slices.Concat(a, []string{"(end)"})[min(i, len(a))], slices.Concat(z, []string{"(end)"})[min(i, len(z))], direct)
		}
	}
	if len(a) < least {
		t.Errorf("saw too little:\n%s", direct)
	}
}

// tidy leaves out what differs by the test's own directories and by the namespaces' numbers.
func tidy(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		for i, w := range f {
			switch {
			case strings.Contains(w, "/TestStartWaysAreTheSame"):
				f[i] = "DIR"
				if j := strings.LastIndex(w, "/00"); j >= 0 {
					f[i] = "DIR" + strings.TrimLeft(w[j+1:], "0123456789")
				}
			case strings.Contains(w, ":[") && strings.HasSuffix(w, "]"):
				f[i], _, _ = strings.Cut(w, "[")
			}
			if strings.Contains(w, "lowerdir") || strings.Contains(w, "upperdir") {
				f[i] = "OVERLAY"
			}
		}
		out = append(out, strings.Join(f, " "))
	}
	return strings.Join(out, "\n")
}

// TestStartTerminalWaysAreTheSame: the terminal, its owner, size, name and /dev/console.
func TestStartTerminalWaysAreTheSame(t *testing.T) {
	for _, uid := range []uint32{0, 1000} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			var outs [2]string
			for i, w := range ways {
				b := newBox(newRootfs(t), "sh", "-c", look+"\ntty; stty size; stat -c '%A %u %g %t:%T %N' /dev/console /dev/pts /dev/pts/*; cut -d' ' -f4- /proc/self/mountinfo")
				b.opts.Spec.Process.Terminal, b.opts.Fresh = true, w.fresh
				b.opts.Spec.Process.User.UID = uid
				b.opts.ID, b.opts.ConsoleSize = "same", oci.WinSize{Rows: 33, Cols: 77}
				p, err := oci.Create(t.Context(), &b.opts)
				must(t, err)
				if oci.SkippedInit(p) == w.fresh && oci.SysprogWorks() {
					t.Errorf("without init: %v, since %v", oci.SkippedInit(p), oci.Refused(p))
				}
				outs[i] = strings.ReplaceAll(readAll(p.Console), b.opts.Spec.Linux.CgroupsPath, "CGROUP")
				wait(t, p)
				p.Console.Close()
				must(t, oci.DeleteCgroup(p.Cgroup))
				if !strings.Contains(outs[i], "/dev/pts/0\n33 77\n") {
					t.Errorf("%q", outs[i])
				}
			}
			sameLines(t, strings.ReplaceAll(outs[0], "TestStartTerminal", "TestStart"), strings.ReplaceAll(outs[1], "TestStartTerminal", "TestStart"), 60)
		})
	}
}

// TestStartJoins: a program of system calls enters namespaces of other containers.
func TestStartJoins(t *testing.T) {
	root := newRootfs(t)
	first := sleeping(t, newBox(root, "sleep", "1000"))
	want := strings.Join(nsOf(t, first.Pid, "net", "ipc", "uts"), "\n") + "\nbox\n"
	bothWays(t, func(t *testing.T, fresh bool) {
		b := newBox(root, "sh", "-c", "for n in net ipc uts; do readlink /proc/self/ns/$n; done; hostname")
		b.opts.Spec.Hostname, b.opts.Fresh = "", fresh
		b.from(first.Pid, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace)
		p, out, err := b.start(t)
		must(t, err)
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
		if got := out(); got != want || oci.SkippedInit(p) == fresh && oci.SysprogWorks() {
			t.Errorf("%q, want %q; without init %v, since %v", got, want, oci.SkippedInit(p), oci.Refused(p))
		}
	})
}

// TestStartErrorsAreTheSame: what a program of system calls cannot do, init does or words.
func TestStartErrorsAreTheSame(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*box)
		class  error
		text   string
	}{
		"missing":   {func(b *box) { b.opts.Spec.Process.Args = []string{"nope"} }, errdefs.ErrNotFound, `exec: "nope": executable file not found in $PATH`},
		"directory": {func(b *box) { b.opts.Spec.Process.Args = []string{"/bin"} }, errdefs.ErrPermissionDenied, `exec: "/bin": is a directory`},
		"junk":      {func(b *box) { b.opts.Spec.Process.Args = []string{"/etc/junk"} }, errdefs.ErrInvalidArgument, `exec /etc/junk: exec format error`},
		"cwd":       {func(b *box) { b.opts.Spec.Process.Cwd = "/etc/passwd" }, errdefs.ErrInvalidArgument, `chdir to cwd ("/etc/passwd") set in config.json failed: not a directory`},
		"cwd by fd": {func(b *box) { b.opts.Spec.Process.Cwd = "/proc/self/fd/7" }, errdefs.ErrInvalidArgument, ""},
		"source": {func(b *box) {
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such", Options: []string{"rbind", "rprivate"}})
		}, errdefs.ErrInvalidArgument, `error mounting "/no/such" to rootfs at "/x": no such file or directory`},
		"type": {func(b *box) {
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/etc/passwd", Type: "bind", Source: "/etc", Options: []string{"rbind", "rprivate"}})
		}, errdefs.ErrInvalidArgument, `error mounting "/etc" to rootfs at "/etc/passwd": not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type`},
		"option": {func(b *box) {
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "tmpfs", Options: []string{"nonsense=1"}})
		}, nil, ""},
		"sysctl":    {func(b *box) { b.opts.Spec.Linux.Sysctl = map[string]string{"net.nope": "1"} }, nil, "write sysctl key net/nope: no such file or directory"},
		"zero byte": {func(b *box) { b.opts.Spec.Linux.MaskedPaths = []string{"/proc\x00/x"} }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var texts [2]string
			for i, w := range ways {
				root := newRootfs(t)
				must(t, os.WriteFile(root+"/etc/junk", []byte("junk"), 0o755))
				b := newBox(root, "true")
				c.change(b)
				b.opts.Fresh = w.fresh
				_, code, err := b.tryRun(t)
				if err == nil || c.class != nil && !errors.Is(err, c.class) || c.text != "" && err.Error() != c.text {
					t.Fatalf("%s: %d %v", w.name, code, err)
				}
				texts[i] = err.Error()
				noCgroup(t, b)
			}
			if texts[0] != texts[1] {
				t.Errorf("%q, through init %q", texts[0], texts[1])
			}
		})
	}
}

// TestStartFollowsDanglingLinks: a mount target behind a link to what is missing is one
// of the things that init does.
func TestStartFollowsDanglingLinks(t *testing.T) {
	bothWays(t, func(t *testing.T, fresh bool) {
		root := newRootfs(t)
		must(t, os.Symlink("/run/new/resolv.conf", root+"/etc/resolv.conf"))
		b := newBox(root, "cat", "/run/new/resolv.conf")
		b.opts.Fresh = fresh
		f := filepath.Join(t.TempDir(), "r")
		must(t, os.WriteFile(f, []byte("hi\n"), 0o644))
		b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: f, Options: []string{"rbind", "rprivate"}})
		if out, code := b.run(t); out != "hi\n" || code != 0 {
			t.Errorf("%q %d", out, code)
		}
	})
}

// TestStartHeld: a held process executes when it is let go, by us or by a process that
// comes later, and an error then has init's words.
func TestStartHeld(t *testing.T) {
	bothWays(t, func(t *testing.T, fresh bool) {
		for _, socket := range []bool{false, true} {
			t.Run(fmt.Sprint(socket), func(t *testing.T) {
				for prog, want := range map[string]string{"hi": "", "junk": "exec /bin/junk: exec format error"} {
					root := newRootfs(t)
					must(t, os.WriteFile(root+"/bin/junk", []byte("junk"), 0o755))
					must(t, os.WriteFile(root+"/bin/hi", []byte("#!/bin/sh\necho hi\n"), 0o755))
					b := newBox(root, prog)
					b.opts.Hold, b.opts.Fresh = true, fresh
					dir, err := os.Open(t.TempDir())
					must(t, err)
					defer dir.Close()
					if socket {
						b.opts.StartSocket, err = oci.ListenStart(dir, "start")
						must(t, err)
					}
					p, out, err := b.start(t)
					must(t, err)
					if oci.SkippedInit(p) == fresh && oci.SysprogWorks() {
						t.Errorf("without init: %v, since %v", oci.SkippedInit(p), oci.Refused(p))
					}
					if socket {
						b.opts.StartSocket.Close()
						visit(t, dir, "start")
						err = oci.StartHeld(dir, "start")
					} else {
						err = p.Release()
					}
					code := wait(t, p)
					must(t, oci.DeleteCgroup(p.Cgroup))
					switch {
					case want != "" && (err == nil || err.Error() != want || code == 0 || !errors.Is(err, errdefs.ErrInvalidArgument)):
						t.Errorf("socket %v: %v, %d", socket, err, code)
					case want == "" && (err != nil || code != 0 || out() != "hi\n"):
						t.Errorf("socket %v: %v, %d", socket, err, code)
					}
					if socket {
						if err := oci.StartHeld(dir, "start"); !errors.Is(err, errdefs.ErrFailedPrecondition) {
							t.Errorf("started again: %v", err)
						}
					}
				}
			})
		}
	})
}

// visit connects to a socket and leaves, which starts nothing.
func visit(t *testing.T, dir *os.File, name string) {
	c, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), name))
	must(t, err)
	must(t, c.Close())
}

// TestStartCanceled: a start whose context has ended leaves nothing.
func TestStartCanceled(t *testing.T) {
	bothWays(t, func(t *testing.T, fresh bool) {
		b := newBox(newRootfs(t), "true")
		b.opts.Fresh = fresh
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		kids := children(t)
		if _, err := oci.Create(ctx, &b.opts); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if n := children(t); n != kids {
			t.Errorf("%d children, were %d", n, kids)
		}
		noCgroup(t, b)
	})
}

// TestStartLeastMemory: a container may have as little memory as its program needs.
func TestStartLeastMemory(t *testing.T) {
	limit := int64(1 << 20)
	for range 10 {
		b := newBox(newRootfs(t), "true")
		b.opts.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
		p, _, err := b.start(t)
		must(t, err)
		if code := wait(t, p); code != 0 || !oci.SkippedInit(p) && oci.SysprogWorks() {
			t.Errorf("status %d, without init %v, since %v", code, oci.SkippedInit(p), oci.Refused(p))
		}
		must(t, oci.DeleteCgroup(p.Cgroup))
	}
}

// TestStartOnePid: the smallest limit of processes holds for the program alone.
func TestStartOnePid(t *testing.T) {
	one := int64(1)
	bothWays(t, func(t *testing.T, fresh bool) {
		b := newBox(newRootfs(t), "sh", "-c", "echo hi; (true) || echo no")
		b.opts.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &one}
		b.opts.Fresh = fresh
		if out, _ := b.run(t); !strings.HasPrefix(out, "hi\n") || !strings.Contains(out, "fork") {
			t.Errorf("%q", out)
		}
	})
	// By init after a program of system calls gave up, in the same cgroup.
	root := newRootfs(t)
	must(t, os.Symlink("/nowhere/far", root+"/etc/link"))
	b := newBox(root, "sh", "-c", "echo hi; (true) || echo no")
	b.opts.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &one}
	b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/etc/link", Type: "tmpfs", Source: "tmpfs"})
	p, out, err := b.start(t)
	must(t, err)
	wait(t, p)
	must(t, oci.DeleteCgroup(p.Cgroup))
	if got := out(); !strings.HasPrefix(got, "hi\n") || !strings.Contains(got, "fork") || oci.SkippedInit(p) {
		t.Errorf("%q, without init %v", got, oci.SkippedInit(p))
	}
}

// TestStartsLeakNothing: starts that succeed, that fail, and that init has to finish.
func TestStartsLeakNothing(t *testing.T) {
	root := newRootfs(t)
	must(t, os.Symlink("/nowhere/far", root+"/etc/link"))
	one := func(i int) {
		b := newBox(root, "true")
		switch i % 4 {
		case 1:
			b.opts.Spec.Process.Args = []string{"nope"}
		case 2:
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/etc/link", Type: "tmpfs", Source: "tmpfs"})
		case 3:
			b.opts.Hold = true
		}
		p, err := oci.Create(t.Context(), &b.opts)
		if (err != nil) != (i%4 == 1) {
			t.Fatalf("%d: %v", i, err)
		}
		if err != nil {
			return
		}
		if i%8 == 3 {
			must(t, unix.Kill(p.Pid, unix.SIGKILL))
			if err := p.Release(); err == nil {
				t.Error("a killed process was released")
			}
		} else {
			must(t, p.Release())
		}
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
	}
	for i := range 8 {
		one(i)
	}
	fds, kids, maps := openDescriptors(t), children(t), mappings(t)
	n := 200
	if testing.Short() {
		n = 40
	}
	for i := range n {
		one(i)
	}
	if f, k := openDescriptors(t), children(t); f > fds || k != kids {
		t.Errorf("descriptors %d, were %d; children %d, were %d", f, fds, k, kids)
	}
	if m := mappings(t); m > maps+20 {
		t.Errorf("%d mappings, were %d", m, maps)
	}
}

// TestHeldMemory: a held process has nothing of our memory but the code and its program.
func TestHeldMemory(t *testing.T) {
	b := newBox(newRootfs(t), "true")
	b.opts.Hold = true
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.Pid))
	must(t, err)
	if oci.SkippedInit(p) && strings.Contains(string(maps), "c000000000-") {
		t.Errorf("it has our memory:\n%s", maps)
	}
	must(t, p.Release())
	wait(t, p)
	must(t, oci.DeleteCgroup(p.Cgroup))
}

// TestTimerSlack: a process has the timer slack that the runtime was started with, whatever
// that of the thread that starts it has become.
func TestTimerSlack(t *testing.T) {
	root := newRootfs(t)
	p, eb := running(t, root)
	bothWays(t, func(t *testing.T, fresh bool) {
		runtime.LockOSThread() // for good: it ends with this goroutine
		must(t, unix.Prctl(unix.PR_SET_TIMERSLACK, 7777777, 0, 0, 0))
		const script = "cat /proc/self/timerslack_ns"
		if out, _ := newBoxBy(fresh, root, "sh", "-c", script).run(t); out != "50000\n" {
			t.Errorf("start: %q", out)
		}
		must(t, unix.Prctl(unix.PR_SET_TIMERSLACK, 7777777, 0, 0, 0))
		out, _, err := execBy(t, p, eb, &specs.Process{Args: []string{"sh", "-c", script}}, fresh, func(*oci.ExecOpts) {})
		if err != nil || out != "50000\n" {
			t.Errorf("exec: %q %v", out, err)
		}
	})
}
