package cgroup

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// Details is what Stats leaves out and few ask for.
type Details struct {
	// Swap counts memory and swap together, on both versions. Kernel and KernelTCP are of version 1.
	Swap, Kernel, KernelTCP Counter
	// PerCPU times are in nanoseconds, of version 1.
	PerCPUKernel, PerCPUUser []uint64
	CPUs, Mems               []uint16
	// Flags of a version 1 cpuset by their names below "cpuset.".
	Flags   map[string]int64
	Hugetlb map[string]Counter
	// Pressure by controller, "cpu", "memory" and "io"; of version 2.
	Pressure map[string]Pressure
}

// Counter is a use with its limit, in bytes. No limit is 0.
type Counter struct{ Limit, Usage, Max, Failcnt uint64 }

// Pressure tells how long tasks have waited (Documentation/accounting/psi.rst).
type Pressure struct{ Some, Full Waits }

// Waits are shares of time in percent, and microseconds in all.
type Waits struct {
	Avg10, Avg60, Avg300 float64
	Total                uint64
}

// Details reads them now. What this kernel does not have stays zero; class ErrNotFound
// when the cgroup is gone.
func (g *Group) Details() (*Details, error) {
	if !exists(g.procsDir()) {
		return nil, errclass.NotFound("the cgroup is gone")
	}
	d := &Details{Hugetlb: map[string]Counter{}}
	if g.sys.Unified() {
		return d, g.detailsV2(d)
	}
	return d, g.detailsV1(d)
}

func (g *Group) detailsV1(d *Details) error {
	mem := g.dirs["memory"]
	var ns []number
	for prefix, c := range map[string]*Counter{"memory.memsw.": &d.Swap, "memory.kmem.": &d.Kernel, "memory.kmem.tcp.": &d.KernelTCP} {
		ns = append(ns, counters(mem, prefix, c)...)
	}
	if err := readNumbers(ns); err != nil {
		return err
	}
	if err := hugetlb(g.dirs["hugetlb"], "limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", d.Hugetlb); err != nil {
		return err
	}
	if err := percpu(g.dirs["cpuacct"], d); err != nil {
		return err
	}
	set := g.dirs["cpuset"]
	if set == "" {
		return nil
	}
	if err := cpuset(set, "cpuset.cpus", "cpuset.mems", d); err != nil {
		return err
	}
	d.Flags = map[string]int64{}
	for _, f := range [...]string{
		"cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure",
		"sched_load_balance", "sched_relax_domain_level",
	} {
		b, err := readFile(set + "/cpuset." + f)
		if opt(err) != nil {
			return err
		}
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64); err == nil {
			d.Flags[f] = n
		}
	}
	return nil
}

func counters(dir, prefix string, c *Counter) []number {
	return []number{
		{dir, prefix + "limit_in_bytes", &c.Limit},
		{dir, prefix + "usage_in_bytes", &c.Usage},
		{dir, prefix + "max_usage_in_bytes", &c.Max},
		{dir, prefix + "failcnt", &c.Failcnt},
	}
}

// hugetlb reads one counter for each size of pages.
func hugetlb(dir, limit, usage, most string, out map[string]Counter) error {
	if dir == "" {
		return nil
	}
	ents, err := os.ReadDir(dir)
	if err != nil {
		return opt(err)
	}
	for _, e := range ents {
		size, ok := strings.CutSuffix(strings.TrimPrefix(e.Name(), "hugetlb."), "."+usage)
		if !ok || !strings.HasPrefix(e.Name(), "hugetlb.") || strings.Contains(size, ".") {
			continue
		}
		var c Counter
		p := "hugetlb." + size + "."
		err := readNumbers([]number{{dir, p + limit, &c.Limit}, {dir, p + usage, &c.Usage}, {dir, p + most, &c.Max}, {dir, p + "failcnt", &c.Failcnt}})
		if err != nil {
			return err
		}
		out[size] = c
	}
	return nil
}

// percpu reads cpuacct.usage_all: a heading, then "CPU user system".
func percpu(dir string, d *Details) error {
	if dir == "" {
		return nil
	}
	b, err := readFile(dir + "/cpuacct.usage_all")
	if opt(err) != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) != 3 {
			continue
		}
		user, err1 := strconv.ParseUint(string(f[1]), 10, 64)
		sys, err2 := strconv.ParseUint(string(f[2]), 10, 64)
		if err1 == nil && err2 == nil {
			d.PerCPUUser, d.PerCPUKernel = append(d.PerCPUUser, user), append(d.PerCPUKernel, sys)
		}
	}
	return nil
}

func cpuset(dir, cpus, mems string, d *Details) error {
	for name, to := range map[string]*[]uint16{cpus: &d.CPUs, mems: &d.Mems} {
		b, err := readFile(dir + "/" + name)
		if opt(err) != nil {
			return err
		}
		*to = parseList(string(b))
	}
	return nil
}

// parseList reads "0-3,7"; what is no number is left out.
func parseList(s string) (out []uint16) {
	const most = 8192
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || b >= most {
			continue
		}
		for ; a <= b; a++ {
			out = append(out, uint16(a))
		}
	}
	return out
}

func (g *Group) detailsV2(d *Details) error {
	dir := g.dirs[""]
	var usage, limit uint64
	err := readNumbers([]number{
		{dir, "memory.current", &usage},
		{dir, "memory.max", &limit},
		{dir, "memory.swap.current", &d.Swap.Usage},
		{dir, "memory.swap.max", &d.Swap.Limit},
	})
	if err != nil {
		return err
	}
	// Without a limit for one of them there is none for both.
	if d.Swap.Limit != 0 && limit != 0 {
		d.Swap.Limit += limit
	} else {
		d.Swap.Limit = 0
	}
	d.Swap.Usage += usage
	if err := hugetlb(dir, "max", "current", "", d.Hugetlb); err != nil {
		return err
	}
	d.Pressure = map[string]Pressure{}
	for _, c := range [...]string{"cpu", "memory", "io"} {
		b, err := readFile(dir + "/" + c + ".pressure")
		if err == nil {
			d.Pressure[c] = parsePressure(b)
		}
	}
	return cpuset(dir, "cpuset.cpus.effective", "cpuset.mems.effective", d)
}

// parsePressure reads "some avg10=0.00 avg60=0.00 avg300=0.00 total=0" and "full …".
func parsePressure(b []byte) (p Pressure) {
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		w := &p.Some
		if f[0] == "full" {
			w = &p.Full
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			switch k {
			case "avg10":
				w.Avg10 = percent(v)
			case "avg60":
				w.Avg60 = percent(v)
			case "avg300":
				w.Avg300 = percent(v)
			case "total":
				w.Total, _ = strconv.ParseUint(v, 10, 64)
			}
		}
	}
	return p
}

// percent reads a share; what is no such number is 0: JSON has no infinity.
func percent(s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= 0 && f <= 1e6) {
		return 0
	}
	return f
}
