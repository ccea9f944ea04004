//go:build amd64 || arm64

package sysprog

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMemory: a process has our code and its block, and no more; it
// cannot be looked into and has no descriptors of ours.
func TestMemory(t *testing.T) {
	if !Works() {
		t.Skip("no programs of system calls here")
	}
	secret := bytes.Repeat([]byte("secret"), 1<<16)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	b, err := New(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	p := Program{Out: uintptr(ends[1]), Steps: []Step{
		{Nr: unix.SYS_PRCTL, Args: [5]uintptr{unix.PR_SET_DUMPABLE, 0}},
		{Kind: Ready},
		{Nr: unix.SYS_CLOSE_RANGE, Args: [5]uintptr{0, 1<<32 - 1, 0}},
		{Nr: unix.SYS_PPOLL},
	}}
	if err := b.Load(&p); err != nil {
		t.Fatal(err)
	}
	pid, errno := b.Start()
	if errno != 0 {
		t.Fatal(errno)
	}
	b.Free()
	defer unix.Wait4(pid, nil, unix.WALL, nil)
	defer unix.Kill(pid, unix.SIGKILL)
	unix.Close(ends[1])
	var buf [ReportSize + 1]byte
	for n := 0; ; {
		got, err := unix.Read(ends[0], buf[n:])
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if got == 0 { // it has closed its end, too
			break
		}
		n += max(got, 0)
	}
	unix.Close(ends[0])
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	writable := 0
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, "rw-p") {
			writable++
		}
	}
	if writable != 1 && !keepsThread || strings.Contains(string(maps), "c000000000-") {
		t.Errorf("it has more memory than its block:\n%s", maps)
	}
	if ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err != nil || len(ents) != 0 {
		t.Errorf("descriptors: %v %v", ents, err)
	}
	if len(secret) == 0 {
		t.Error("collected")
	}
}

func TestCodeIn(t *testing.T) {
	const exe, memfd, pie = `00400000-00500000 r-xp 00000000 fe:00 12 /x
00500000-00600000 r--p 00100000 fe:00 12 /x
00600000-00610000 rw-p 00200000 fe:00 12 /x
00610000-00620000 rw-p 00000000 00:00 0
c000000000-c000400000 rw-p 00000000 00:00 0
7ffc0000-7ffd0000 r-xp 00000000 00:00 0 [vdso]
`, `00400000-00500000 r-xp 00000000 00:01 9 /memfd:x (deleted)
00700000-00800000 r--p 00100000 00:01 9 /memfd:x (deleted)
`, `1000-2000 r--p 00000000 fe:00 7 /lib
5000-6000 r--p 00000000 fe:00 12 /x
6000-7000 r-xp 00001000 fe:00 12 /x
7000-8000 r--p 00002000 fe:00 12 /x
8000-9000 rw-p 00003000 fe:00 12 /x
`
	for _, c := range []struct {
		maps string
		pc   uintptr
		want string
	}{
		{exe, 0x400010, "[400000 600000]"},
		{exe, 0x600000, "not found"},
		{exe, 0x7ffc0000, "not found"},
		{exe, 0x700000, "not found"},
		{memfd, 0x4fffff, "[400000 500000]"},
		{pie, 0x6000, "[5000 8000]"},
		{"", 1, "not found"},
		{"junk\n-\n1-2\n", 1, "not found"},
	} {
		t.Run(c.maps+" "+c.want, func(t *testing.T) {
			r, err := codeIn([]byte(c.maps), c.pc)
			got := fmt.Sprintf("%x", r)
			if err != nil {
				got = "not found"
			}
			if got != c.want {
				t.Errorf("%x: %s, want %s", c.pc, got, c.want)
			}
		})
	}
}

func TestKernelIn(t *testing.T) {
	const maps = `7ffc0000-7ffd0000 rw-p 00000000 00:00 0 [stack]
7ffd0000-7ffd4000 r--p 00000000 00:00 0 [vvar]
7ffd4000-7ffd5000 r--p 00000000 00:00 0 [vvar_vclock]
7ffd5000-7ffd6000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
`
	if r := kernelIn([]byte(maps)); r != [2]uintptr{0x7ffd0000, 0x7ffd6000} {
		t.Errorf("%x", r)
	}
	if r := kernelIn(nil); r != [2]uintptr{} {
		t.Errorf("%x", r)
	}
}

// TestForkLeavesMemory: forks of others get all memory, as before.
func TestForkLeavesMemory(t *testing.T) {
	if !Works() {
		t.Skip("no programs of system calls here")
	}
	b, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	name := ""
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); strings.Contains(f[0], "-") {
			name = line
		} else if f[0] == "VmFlags:" && strings.Contains(line, " dc") && !strings.Contains(name, "[v") {
			t.Errorf("not copied by forks: %s", name)
		}
	}
}
