package cgroup

import (
	"cmp"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite golden files")

func p[T any](v T) *T { return &v }

// everything sets each resource once.
func everything() *specs.LinuxResources {
	td := []specs.LinuxThrottleDevice{{}}
	td[0].Major, td[0].Minor, td[0].Rate = 8, 16, 1048576
	wd := specs.LinuxWeightDevice{Weight: p[uint16](200), LeafWeight: p[uint16](300)}
	wd.Major, wd.Minor = 8, 0
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p[int64](64 << 20), Swap: p[int64](96 << 20), Reservation: p[int64](32 << 20), KernelTCP: p[int64](8 << 20), Swappiness: p[uint64](10), DisableOOMKiller: p(true)},
		CPU: &specs.LinuxCPU{
			Shares: p[uint64](512), Quota: p[int64](50000), Period: p[uint64](100000), Burst: p[uint64](1000),
			RealtimePeriod: p[uint64](1000000), RealtimeRuntime: p[int64](950000), Idle: p[int64](1), Cpus: "0-1", Mems: "0",
		},
		Pids: &specs.LinuxPids{Limit: p[int64](100)},
		BlockIO: &specs.LinuxBlockIO{
			Weight: p[uint16](100), LeafWeight: p[uint16](101), WeightDevice: []specs.LinuxWeightDevice{wd},
			ThrottleReadBpsDevice: td, ThrottleWriteBpsDevice: td, ThrottleReadIOPSDevice: td, ThrottleWriteIOPSDevice: td,
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
		Network:        &specs.LinuxNetwork{ClassID: p[uint32](0x100001), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 3}}},
		Rdma:           map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: p[uint32](3), HcaObjects: p[uint32](10000)}},
	}
}

func golden(t *testing.T, name string, ws []write) {
	t.Helper()
	var b strings.Builder
	for _, w := range ws {
		fmt.Fprintf(&b, "%s/%s = %s", w.controller, w.file, w.value)
		if w.alternative != "" {
			fmt.Fprintf(&b, " (or %s = %s)", w.alternative, cmp.Or(w.altValue, w.value))
		}
		if w.optional {
			b.WriteString(" optional")
		}
		if w.swap {
			b.WriteString(" swap")
		}
		b.WriteByte('\n')
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, b.String(), want)
	}
}

// TestWritesGolden: what is written on both versions. Version 2 cannot be run on
// every machine that runs this test.
func TestWritesGolden(t *testing.T) {
	ws, err := writesV1(everything())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "all.v1", ws)
	r := everything()
	r.Unified = map[string]string{"memory.high": "1048576", "cpu.weight.nice": "5"}
	if ws, err = writesV2(r); err != nil {
		t.Fatal(err)
	}
	golden(t, "all.v2", ws)
	unlimited := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: p[int64](-1)}, Pids: &specs.LinuxPids{Limit: p[int64](-1)}, CPU: &specs.LinuxCPU{Quota: p[int64](-1)}}
	ws, _ = writesV1(unlimited)
	golden(t, "unlimited.v1", ws)
	ws, _ = writesV2(unlimited)
	golden(t, "unlimited.v2", ws)
	if ws, _ = writesV1(&specs.LinuxResources{Memory: &specs.LinuxMemory{}, CPU: &specs.LinuxCPU{}, Pids: &specs.LinuxPids{}, BlockIO: &specs.LinuxBlockIO{}}); len(ws) != 0 {
		t.Errorf("nothing asked for writes %v", ws)
	}
}

func TestWritesRefused(t *testing.T) {
	for i, r := range []*specs.LinuxResources{
		{Memory: &specs.LinuxMemory{Swap: p[int64](1 << 20)}},
		{Memory: &specs.LinuxMemory{Limit: p[int64](2 << 20), Swap: p[int64](1 << 20)}},
		{Unified: map[string]string{"../x.y": "1"}},
		{Unified: map[string]string{"cgroup.procs": "1"}},
		{Unified: map[string]string{"x": "1"}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := writesV2(r); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v", r, err)
			}
		})
	}
	if _, err := writesV1(&specs.LinuxResources{Unified: map[string]string{"a.b": "1"}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("unified on v1: %v", err)
	}
}

func TestCPUWeight(t *testing.T) {
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 1024: 100, 262144: 10000, 1 << 40: 10000, 512: 59, 2048: 174} {
		t.Run(fmt.Sprint(shares), func(t *testing.T) {
			if got := CPUWeight(shares); got != want {
				t.Errorf("%d: %d, want %d", shares, got, want)
			}
		})
	}
}

func TestParseMountinfo(t *testing.T) {
	s, err := parseMountinfo(strings.NewReader(`25 30 0:23 / /sys rw - sysfs sysfs rw
31 25 0:27 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755
32 31 0:28 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 31 0:30 / /sys/fs/cgroup/with\040space rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:29 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
short line
`))
	want := &System{V2: "/sys/fs/cgroup/unified", NSDelegate: true, V1: []Hierarchy{
		{[]string{"cpu", "cpuacct"}, "/sys/fs/cgroup/cpu,cpuacct"}, {[]string{"name=systemd"}, "/sys/fs/cgroup/with space"},
	}}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("%+v, %v", s, err)
	}
	g, err := s.Open(s.Paths("/docker/x"))
	if err != nil || len(g.unique) != 3 {
		t.Errorf("%v, %v", g, err)
	}
	for _, bad := range []string{"/", "rel", "/a/../..", ""} {
		t.Run(bad, func(t *testing.T) {
			if _, err := s.Open(map[string]string{"cpu": bad}); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("path %q: %v", bad, err)
			}
		})
	}
}

func FuzzParseMountinfo(f *testing.F) {
	f.Add("33 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
	f.Fuzz(func(t *testing.T, s string) {
		if sys, err := parseMountinfo(strings.NewReader(s)); err == nil {
			for _, h := range sys.V1 {
				if len(h.Controllers) == 0 {
					t.Error("a hierarchy without controllers")
				}
			}
		}
	})
}

// runDevice interprets the subset of eBPF that device programs use.
func runDevice(t *testing.T, prog []byte, typ, acc, major, minor uint32) bool {
	t.Helper()
	var r [11]uint64
	ctx := [3]uint32{acc<<16 | typ, major, minor}
	for pc := 0; pc < len(prog)/insnBytes; {
		i := prog[pc*insnBytes:]
		op, dst, src := i[0], i[1]&15, i[1]>>4
		off := int(int16(binary.LittleEndian.Uint16(i[2:])))
		imm := int32(binary.LittleEndian.Uint32(i[4:]))
		pc++
		switch op {
		case opLoadW:
			r[dst] = uint64(ctx[off/4])
		case opMov:
			r[dst] = uint64(int64(imm))
		case opMovReg:
			r[dst] = r[src]
		case opAnd:
			r[dst] &= uint64(int64(imm))
		case opAnd32:
			r[dst] = uint64(uint32(r[dst]) & uint32(imm))
		case opRsh:
			r[dst] >>= uint(imm)
		case opJne:
			if r[dst] != uint64(int64(imm)) {
				pc += off
			}
		case opJeq:
			if r[dst] == uint64(int64(imm)) {
				pc += off
			}
		case opJne32:
			if uint32(r[dst]) != uint32(imm) {
				pc += off
			}
		case opJneReg:
			if r[dst] != r[src] {
				pc += off
			}
		case opExit:
			return r[0] != 0
		default:
			t.Fatalf("instruction %#x", op)
		}
	}
	t.Fatal("no verdict")
	return false
}

func TestDeviceRules(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	docker := append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, DefaultDevices()...)
	for _, c := range []struct {
		name                   string
		rules                  []specs.LinuxDeviceCgroup
		typ, acc, major, minor uint32
		want                   bool
	}{
		{"null", docker, devChar, accRead | accWrite, 1, 3, true},
		{"mem", docker, devChar, accRead, 1, 1, false},
		{"mknod of a disk", docker, devBlock, accMknod, 8, 0, true},
		{"reading it", docker, devBlock, accRead, 8, 0, false},
		{"both", docker, devBlock, accRead | accMknod, 8, 0, false},
		{"a pty", docker, devChar, accRead | accWrite, 136, 77, true},
		{"nothing said", nil, devChar, accRead, 1, 3, false},
		{"all", []specs.LinuxDeviceCgroup{{Allow: true, Type: "a", Access: "rwm"}}, devBlock, 7, 8, 0, true},
		{"all, then one denied", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "b", Major: n(8), Minor: n(-1), Access: "w"}}, devBlock, accRead | accWrite, 8, 3, false},
		{"its reading", []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "b", Major: n(8), Access: "w"}}, devBlock, accRead, 8, 3, true},
		{"big number", []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: n(1<<32 - 1), Minor: n(0), Access: "r"}}, devChar, accRead, 1<<32 - 1, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runDevice(t, deviceProgram(c.rules), c.typ, c.acc, c.major, c.minor); got != c.want {
				t.Errorf("%s: %v", c.name, got)
			}
		})
	}
	var b strings.Builder
	for _, l := range deviceLines(docker) {
		fmt.Fprintf(&b, "%v %s; ", l.allow, l.text)
	}
	want := "false a; true c *:* m; true b *:* m; true c 1:3 rwm; true c 1:5 rwm; true c 1:7 rwm; true c 1:8 rwm; true c 1:9 rwm; true c 5:0 rwm; true c 136:* rwm; true c 5:2 rwm; "
	if b.String() != want {
		t.Errorf("v1: %s", b.String())
	}
}

// TestDeviceProgramInKernel attaches the filter to a real v2 cgroup and uses a
// device under it; an empty v2 tree beside v1 is enough.
func TestDeviceProgramInKernel(t *testing.T) {
	sys, err := Find()
	if err != nil || sys.V2 == "" || os.Getuid() != 0 {
		t.Skip("needs root and a cgroup2 mount")
	}
	dir := filepath.Join(sys.V2, fmt.Sprintf("gantry-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skip(err)
	}
	defer os.Remove(dir)
	docker := append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, DefaultDevices()...)
	for range 2 { // the second one replaces the first
		if err := attachDeviceProgram(dir, deviceProgram(docker)); err != nil {
			t.Fatal(err)
		}
	}
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(cg)
	if ids, err := attachedPrograms(cg); err != nil || len(ids) != 1 {
		t.Errorf("programs %v, %v", ids, err)
	}
	out, err := runInCgroup(cg, "head -c1 /dev/zero >/dev/null && echo zero; head -c1 /dev/mem >/dev/null 2>&1 || echo nomem")
	if err != nil || out != "zero\nnomem\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestDeviceProgramUnderSignals: a signal makes the verifier give up, which is no
// reason for a container not to start.
func TestDeviceProgramUnderSignals(t *testing.T) {
	prog := deviceProgram(DefaultDevices())
	if fd, err := loadDeviceProgram(prog); err != nil {
		t.Skip(err)
	} else {
		unix.Close(fd)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid := unix.Gettid()
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			default:
				_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			}
		}
	}()
	for range 300 {
		fd, err := loadDeviceProgram(prog)
		if err != nil {
			t.Error(err)
			break
		}
		unix.Close(fd)
	}
	close(done)
	<-stopped
}

func TestStatsParsers(t *testing.T) {
	got := parseBlkio([]byte("8:0 Read 4096\n8:0 Write 0\nTotal 4096\nx:y Read 1\n"))
	if want := []BlkioEntry{{8, 0, "Read", 4096}, {8, 0, "Write", 0}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	io := parseIOStat([]byte("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n"))
	want := BlkioStats{ServiceBytes: []BlkioEntry{{8, 16, "read", 1}, {8, 16, "write", 2}}, Serviced: []BlkioEntry{{8, 16, "read", 3}, {8, 16, "write", 4}}}
	if !reflect.DeepEqual(io, want) {
		t.Errorf("%+v", io)
	}
	for s, want := range map[string]uint64{"max": 0, "9223372036854771712": 0, "4096": 4096, "-1": 0} {
		t.Run(s, func(t *testing.T) {
			if v, err := parseLimit(s); err != nil || v != want {
				t.Errorf("%s: %d, %v", s, v, err)
			}
		})
	}
}
