package systemd

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/godbus/dbus/v5"
)

// Property is one of a unit's, as D-Bus carries it.
type Property struct {
	Name  string
	Value dbus.Variant
}

func prop(name string, v any) Property { return Property{name, dbus.MakeVariant(v)} }

// infinity is systemd's value for no limit.
const infinity = uint64(math.MaxUint64)

// startProps are the properties of a new unit with one process in it.
func startProps(p Place, pid int, v2 bool, extra []Property) []Property {
	out := []Property{prop("Description", "libcontainer container "+p.Container)}
	if strings.HasSuffix(p.Name, ".slice") {
		out = append(out, prop("Wants", []string{p.Slice}))
	} else {
		out = append(out, prop("Slice", p.Slice), prop("Delegate", true), prop("PIDs", []uint32{uint32(pid)}))
	}
	io := "BlockIOAccounting"
	if v2 {
		io = "IOAccounting"
	}
	// Accounting in any case: the files that statistics are read from would be missing.
	out = append(out, prop("MemoryAccounting", true), prop("CPUAccounting", true), prop(io, true), prop("TasksAccounting", true),
		prop("DefaultDependencies", false))
	return append(out, extra...)
}

// annotation begins the names of annotations that are properties of the unit.
const annotation = "org.systemd.property."

// Annotated are the properties that a configuration's annotations ask for, whose
// values are written as gdbus(1) writes them. Class ErrInvalidArgument.
func Annotated(annotations map[string]string) ([]Property, error) {
	var out []Property
	for _, k := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(k, annotation)
		if !ok {
			continue
		}
		if len(name) < 3 || strings.IndexFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) >= 0 {
			return nil, errclass.Invalid("annotation %s: not the name of a property", k)
		}
		v, err := dbus.ParseVariant(annotations[k], dbus.Signature{})
		if err != nil {
			return nil, errclass.Invalid("annotation %s=%s: value parse error: %w", k, annotations[k], err)
		}
		if base, sec := strings.CutSuffix(name, "Sec"); sec && !strings.HasSuffix(base, "U") {
			us, ok := microseconds(v.Value())
			if !ok {
				return nil, errclass.Invalid("annotation %s=%s: not a number of seconds", k, annotations[k])
			}
			name, v = base+"USec", dbus.MakeVariant(us)
		}
		out = append(out, Property{name, v})
	}
	return out, nil
}

func microseconds(v any) (uint64, bool) {
	const million, most = 1e6, 1 << 43
	var f float64
	switch n := v.(type) {
	case int32:
		f = float64(n)
	case uint32:
		f = float64(n)
	case int64:
		f = float64(n)
	case uint64:
		f = float64(n)
	case float64:
		f = n
	default:
		return 0, false
	}
	return uint64(f * million), f >= 0 && f < most
}

// limitProps translates what would be written to a cgroup's files. What systemd does
// not know is left out. version is systemd's, 0 when it is not known.
func limitProps(in []cgroup.Setting, version int) ([]Property, error) {
	var out []Property
	q := quota{}
	for _, s := range in {
		v := strings.TrimSpace(s.Value)
		var ps []Property
		var err error
		switch s.File {
		case "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us":
			err = q.read(s.File, v)
		case "cpuset.cpus":
			ps, err = bits("AllowedCPUs", v, version)
		case "cpuset.mems":
			ps, err = bits("AllowedMemoryNodes", v, version)
		case "cpu.idle":
			// Since 252 a weight of nothing means idle.
			if v == "1" && version >= 252 {
				out = slices.DeleteFunc(out, func(p Property) bool { return p.Name == "CPUWeight" })
				ps = []Property{prop("CPUWeight", uint64(0))}
			}
		case "io.weight", "blkio.weight":
			// For all devices; those of single ones stay files.
			if !strings.Contains(v, ":") {
				ps, err = number(map[string]string{"io.weight": "IOWeight", "blkio.weight": "BlockIOWeight"}[s.File], v)
			}
		default:
			if name := numberProp(s.File); name != "" {
				ps, err = number(name, v)
			}
		}
		if err != nil {
			return nil, errclass.Invalid("%s %q: %w", s.File, s.Value, err)
		}
		out = append(out, ps...)
	}
	return append(out, q.props(version)...), nil
}

// numberProp names the property that is the number of a file, "" when there is none.
func numberProp(file string) string {
	switch file {
	case "memory.limit_in_bytes":
		return "MemoryLimit"
	case "memory.max":
		return "MemoryMax"
	case "memory.low":
		return "MemoryLow"
	case "memory.min":
		return "MemoryMin"
	case "memory.high":
		return "MemoryHigh"
	case "memory.swap.max":
		return "MemorySwapMax"
	case "cpu.shares":
		return "CPUShares"
	case "cpu.weight":
		return "CPUWeight"
	case "pids.max":
		return "TasksMax"
	}
	return ""
}

func number(name, v string) ([]Property, error) {
	if v == "max" || v == "-1" {
		return []Property{prop(name, infinity)}, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return nil, err
	}
	return []Property{prop(name, n)}, nil
}

// quota is CPU time in a period, both in microseconds; 0 is not set, -1 no limit.
type quota struct {
	time   int64
	period uint64
}

func (q *quota) read(file, v string) (err error) {
	time, period, both := strings.Cut(v, " ")
	switch file {
	case "cpu.cfs_period_us":
		q.period, err = strconv.ParseUint(v, 10, 64)
		return err
	case "cpu.max":
		if both {
			if q.period, err = strconv.ParseUint(strings.TrimSpace(period), 10, 64); err != nil {
				return err
			}
		}
		if time == "max" {
			time = "-1"
		}
	}
	q.time, err = strconv.ParseInt(time, 10, 64)
	return err
}

func (q *quota) props(version int) []Property {
	const (
		million     = 1000000
		usual       = 100000 // microseconds, the kernel's
		percent     = million / 100
		withPeriods = 242
	)
	if q.time == 0 && q.period == 0 {
		return nil
	}
	var out []Property
	if q.period != 0 && version >= withPeriods {
		out = append(out, prop("CPUQuotaPeriodUSec", q.period))
	}
	per := infinity
	if q.time > 0 {
		p := q.period
		if p == 0 {
			p = usual
		}
		per = uint64(float64(q.time) * million / float64(p))
		// systemd counts in whole percents; a child may not ask for more than its parent.
		per = (per + percent - 1) / percent * percent
	}
	return append(out, prop("CPUQuotaPerSecUSec", per))
}

// bits is a list of CPUs or nodes as the bitmap that systemd wants.
func bits(name, list string, version int) ([]Property, error) {
	const since, most = 244, 8192
	if version < since {
		return nil, nil
	}
	var out []byte
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		a, err := strconv.ParseUint(first, 10, 16)
		b := a
		if err == nil && isRange {
			b, err = strconv.ParseUint(last, 10, 16)
		}
		if err != nil || b < a || b >= most {
			return nil, fmt.Errorf("%q is not a list of numbers", list)
		}
		for ; a <= b; a++ {
			for uint64(len(out)) <= a/8 {
				out = append(out, 0)
			}
			out[a/8] |= 1 << (a % 8)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%q is not a list of numbers", list)
	}
	return []Property{prop(name, out)}, nil
}
