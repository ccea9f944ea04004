package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeV2 is a cgroup of plain files.
func fakeV2(t *testing.T, files map[string]string) *Group {
	t.Helper()
	dir := t.TempDir()
	files["cgroup.procs"] = ""
	for n, v := range files {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &Group{sys: &System{V2: dir}, dirs: map[string]string{"": dir}, unique: []string{dir}}
}

// TestDetailsV2 reads files as version 2 has them.
func TestDetailsV2(t *testing.T) {
	g := fakeV2(t, map[string]string{
		"memory.current": "1000\n", "memory.max": "5000\n", "memory.swap.current": "10\n", "memory.swap.max": "500\n",
		"hugetlb.2MB.max": "max\n", "hugetlb.2MB.current": "2097152\n", "hugetlb.2MB.rsvd.current": "0\n",
		"memory.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\nfull avg10=0.00 avg60=inf avg300=nan total=x\n",
		"cpu.pressure":    "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n", "cpuset.cpus.effective": "0-2,7\n", "cpuset.mems.effective": "0\n",
	})
	d, err := g.Details()
	if err != nil {
		t.Fatal(err)
	}
	want := &Details{
		Swap: Counter{Limit: 5500, Usage: 1010}, CPUs: []uint16{0, 1, 2, 7}, Mems: []uint16{0},
		Hugetlb: map[string]Counter{"2MB": {Usage: 2097152}},
		Pressure: map[string]Pressure{
			"memory": {Some: Waits{1.5, 0.25, 0, 77}}, "cpu": {Some: Waits{Total: 5}},
		},
	}
	if !reflect.DeepEqual(d, want) {
		t.Errorf("%+v", d)
	}
	// No limit of swap is none of both.
	g = fakeV2(t, map[string]string{"memory.current": "1", "memory.max": "5000", "memory.swap.max": "max"})
	if d, err := g.Details(); err != nil || d.Swap.Limit != 0 {
		t.Errorf("%+v, %v", d, err)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0 total=1"))
	f.Add([]byte("0-3,7\n"))
	f.Add([]byte("8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"))
	f.Add([]byte("8:0 Read 5\nTotal 5\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, x := range [...]float64{parsePressure(b).Some.Avg10, parsePressure(b).Full.Avg300} {
			if !(x >= 0 && x <= 1e6) {
				t.Errorf("%v cannot be printed", x)
			}
		}
		if n := len(parseList(string(b))); n > 8192*len(b) {
			t.Errorf("%d numbers", n)
		}
		_, _ = parseIOStat(b), parseBlkio(b)
		_, _ = parseLimit(string(b))
	})
}

// TestDelegate: the directory and the files of the list change hands, limits do not.
func TestDelegate(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	g := fakeV2(t, map[string]string{"cgroup.threads": "", "cgroup.subtree_control": "", "memory.max": "", "pids.max": ""})
	if err := g.Delegate(4711); err != nil {
		t.Fatal(err)
	}
	dir := g.dirs[""]
	for n, want := range map[string]uint32{"": 4711, "cgroup.procs": 4711, "cgroup.threads": 4711, "cgroup.subtree_control": 4711, "memory.max": 0, "pids.max": 0} {
		t.Run(n, func(t *testing.T) {
			var st unix.Stat_t
			if err := unix.Lstat(filepath.Join(dir, n), &st); err != nil || st.Uid != want {
				t.Errorf("%q is of %d, want %d (%v)", n, st.Uid, want, err)
			}
		})
	}
	if got := parseDelegate([]byte("cgroup.procs\n../x\n\n..\nmemory.oom.group\n")); !reflect.DeepEqual(got, []string{"cgroup.procs", "memory.oom.group"}) {
		t.Errorf("%q", got)
	}
}
