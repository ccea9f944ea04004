package become

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

func process() *initmsg.Process {
	return &initmsg.Process{Args: []string{"prog"}, Env: []string{"PATH=/a:/b", "HOME=/"}, Cwd: "/work"}
}

func plan(t *testing.T, p *initmsg.Process, oom *int) *Plan {
	t.Helper()
	f, err := New("id", p, oom, 9, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// TestErr: what a step reports is worded as init would word it.
func TestErr(t *testing.T) {
	for name, row := range map[string]struct {
		step  sysprog.Step
		what  string
		look  bool // the program is looked for in PATH
		errno syscall.Errno
		class error
		text  string
	}{
		"call":            {sysprog.Step{}, "sethostname", false, unix.EPERM, nil, "sethostname: operation not permitted"},
		"by init":         {sysprog.Step{}, byInit, false, unix.EPERM, errdefs.ErrNotImplemented, "only init does this"},
		"directory":       {sysprog.Step{Kind: sysprog.Cwd}, "", false, unix.ENOTDIR, nil, "/work"},
		"breakout":        {sysprog.Step{Kind: sysprog.CwdUser}, "", false, sysprog.ErrBreakout, nil, "outside"},
		"missing":         {sysprog.Step{Kind: sysprog.Look}, "", true, unix.ENOENT, errdefs.ErrNotFound, "executable file not found in $PATH"},
		"denied in path":  {sysprog.Step{Kind: sysprog.Look}, "", true, unix.EACCES, errdefs.ErrPermissionDenied, "permission denied"},
		"missing by path": {sysprog.Step{Kind: sysprog.Look}, "", false, unix.ENOENT, errdefs.ErrNotFound, "no such file or directory"},
		"exec":            {sysprog.Step{Kind: sysprog.Exec}, "", false, unix.ENOEXEC, nil, "/a/prog"},
	} {
		t.Run(name, func(t *testing.T) {
			f := plan(t, process(), nil)
			f.names, f.Program.Look = []string{"/a/prog"}, row.look
			f.Add("another step", sysprog.Step{})
			f.Add(row.what, row.step)
			err := f.Err(&sysprog.Report{Kind: sysprog.ReportError, Step: 1, Errno: uint32(row.errno)})
			if err == nil || !strings.Contains(err.Error(), row.text) || row.class != nil && !errors.Is(err, row.class) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestReportIsNotBelieved: numbers of a report that are out of range.
func TestReportIsNotBelieved(t *testing.T) {
	f := plan(t, process(), nil)
	f.Add("step", sysprog.Step{})
	for name, r := range map[string]sysprog.Report{"step": {Step: 1}, "name": {Extra: 1}, "both": {Step: 1 << 31, Extra: 1 << 31}} {
		t.Run(name, func(t *testing.T) {
			if err := f.Err(&r); !errors.Is(err, initmsg.ErrEndedEarly) {
				t.Error(err)
			}
			if r.Step != 0 && f.Soft(&r) {
				t.Error("an unknown step may fail")
			}
		})
	}
}

func TestWarning(t *testing.T) {
	score := -5
	for name, row := range map[string]struct {
		oom  *int
		kind sysprog.Kind
		want string
	}{
		"score nobody asked for": {nil, sysprog.OOM, ""},
		"score":                  {&score, sysprog.OOM, "oom_score_adj -5: permission denied"},
		"limit":                  {nil, sysprog.Call, "error setting rlimit type RLIMIT_X: permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			f := plan(t, process(), row.oom)
			f.Add("RLIMIT_X", sysprog.Step{Kind: row.kind, Soft: true})
			r := &sysprog.Report{Errno: uint32(unix.EACCES)}
			if !f.Soft(r) {
				t.Error("the step must not fail")
			}
			if got := f.Warning(r); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
		})
	}
}

func TestInexpressible(t *testing.T) {
	for name, spoil := range map[string]func(*Plan){
		"said so":   func(f *Plan) { f.Inexpressible() },
		"zero byte": func(f *Plan) { f.Str("a\x00b") },
		"registers": func(f *Plan) {
			for range int(sysprog.LastReg) + 1 {
				f.Reg()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := plan(t, process(), nil)
			if err := f.Load(); err != nil {
				t.Fatal(err)
			}
			f = plan(t, process(), nil)
			spoil(f)
			if err := f.Load(); !errors.Is(err, errdefs.ErrNotImplemented) {
				t.Error(err)
			}
		})
	}
}

// TestOrderAtTheEnd: what is given up while the rights for it are still there.
func TestOrderAtTheEnd(t *testing.T) {
	p := process()
	p.UID, p.GID, p.NoNewPrivs = 5, 6, true
	f := plan(t, p, nil)
	f.Session()
	f.Identity()
	f.Limits()
	f.Last()
	last := -1
	for _, what := range []string{"set no_new_privs", "drop bounding capability", "setgroups", "setgid", "setuid", "set capabilities", "RLIMIT_NOFILE", "ready"} {
		i := slices.Index(f.what, what)
		if i <= last {
			t.Errorf("%q is step %d, step %d must precede it: %q", what, i, last, f.what)
		}
		last = i
	}
	if f.what[len(f.what)-1] != "set capabilities" {
		t.Errorf("the last step is %q", f.what[len(f.what)-1])
	}
	if err := f.Load(); err != nil {
		t.Error(err)
	}
}

// TestReceive: reports, their descriptors, and the end.
func TestReceive(t *testing.T) {
	report := func(kind uint32) []byte {
		r := sysprog.Report{Kind: kind, Step: 3}
		return append([]byte(nil), unsafe.Slice((*byte)(unsafe.Pointer(&r)), sysprog.ReportSize)...)
	}
	for name, row := range map[string]struct {
		send []byte
		fds  int
		end  bool
		fail bool
	}{
		"report":          {send: report(2)},
		"with descriptor": {send: report(1), fds: 1},
		"two descriptors": {send: report(1), fds: 2, fail: true},
		"short":           {send: report(1)[:5], fds: 1, fail: true},
		"end":             {end: true},
	} {
		t.Run(name, func(t *testing.T) {
			in, out, err := Socket()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if row.send != nil {
				if _, err := fdpass.Send(out, row.send, 0, slices.Repeat([]int{out}, row.fds)...); err != nil {
					t.Fatal(err)
				}
			}
			unix.Close(out)
			r, fd, err := Receive(in)
			switch {
			case row.fail:
				if err == nil || fd >= 0 {
					t.Errorf("%v %d %v", r, fd, err)
				}
			case row.end:
				if r != nil || err != nil {
					t.Errorf("%v %v", r, err)
				}
			case err != nil || r == nil || r.Step != 3 || (fd >= 0) != (row.fds == 1):
				t.Errorf("%v %d %v", r, fd, err)
			}
			if fd >= 0 {
				unix.Close(fd)
			}
		})
	}
}

func TestTakeTerminal(t *testing.T) {
	var f *os.File
	if err := TakeTerminal(&f, -1); !errors.Is(err, errdefs.ErrInternal) || f != nil {
		t.Errorf("no descriptor: %v", err)
	}
	open := func() int {
		fd, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	if err := TakeTerminal(&f, open()); err != nil || f == nil {
		t.Fatalf("%v", err)
	}
	defer f.Close()
	second := open()
	if err := TakeTerminal(&f, second); err == nil {
		t.Error("a second terminal was taken")
	}
	if _, err := unix.FcntlInt(uintptr(second), unix.F_GETFD, 0); err == nil {
		t.Error("the second terminal is still open")
	}
}
