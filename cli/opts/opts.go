// Package opts holds the flag types of the command line: lists, maps, sizes, filters.
// Each implements pflag.Value; Type is the word help texts show.
package opts

import (
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"sort"
	"strings"

	units "github.com/docker/go-units"
)

// List is a flag given any number of times.
type List struct {
	vals  []string
	check func(string) (string, error)
}

// NewList makes a list whose values pass through check (nil: as they are).
func NewList(check func(string) (string, error)) *List { return &List{check: check} }

// Set adds one value.
func (l *List) Set(v string) error {
	if l.check != nil {
		c, err := l.check(v)
		if err != nil {
			return err
		}
		v = c
	}
	l.vals = append(l.vals, v)
	return nil
}

// Type implements pflag.Value.
func (l *List) Type() string { return "list" }

// String implements pflag.Value.
func (l *List) String() string {
	if len(l.vals) == 0 {
		return ""
	}
	return fmt.Sprint(l.vals)
}

// All are the values in the order given; nil when there are none.
func (l *List) All() []string { return l.vals }

// NonNil are the values in the order given, never nil.
func (l *List) NonNil() []string {
	if l.vals == nil {
		return []string{}
	}
	return l.vals
}

// Map is a flag of key=value pairs.
type Map struct {
	vals  map[string]string
	check func(string) (string, error)
}

// NewMap makes a map whose pairs pass through check (nil: as they are).
func NewMap(check func(string) (string, error)) *Map {
	return &Map{vals: map[string]string{}, check: check}
}

// Set adds one pair; without "=" the value is empty.
func (m *Map) Set(v string) error {
	if m.check != nil {
		c, err := m.check(v)
		if err != nil {
			return err
		}
		v = c
	}
	k, val, _ := strings.Cut(v, "=")
	m.vals[k] = val
	return nil
}

// Type implements pflag.Value.
func (m *Map) Type() string { return "map" }

// String implements pflag.Value.
func (m *Map) String() string { return fmt.Sprint(m.vals) }

// All are the pairs, never nil.
func (m *Map) All() map[string]string { return m.vals }

// Bytes is a size such as 64m.
type Bytes struct {
	N    int64
	Swap bool // -1 is allowed and means no limit
}

// Set implements pflag.Value.
func (b *Bytes) Set(v string) error {
	if b.Swap && v == "-1" {
		b.N = -1
		return nil
	}
	n, err := units.RAMInBytes(v)
	if err != nil {
		return err
	}
	b.N = n
	return nil
}

// Type implements pflag.Value.
func (b *Bytes) Type() string { return "bytes" }

// String implements pflag.Value.
func (b *Bytes) String() string {
	if b.N > 0 {
		return units.BytesSize(float64(b.N))
	}
	return "0"
}

// CPUs is a decimal number of CPUs, kept in units of 1e-9 CPU.
type CPUs struct{ Nano int64 }

// Set implements pflag.Value.
func (c *CPUs) Set(v string) error {
	r, ok := new(big.Rat).SetString(v)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", v)
	}
	n := r.Mul(r, big.NewRat(1e9, 1))
	if !n.IsInt() {
		return errors.New("value is too precise")
	}
	c.Nano = n.Num().Int64()
	return nil
}

// Type implements pflag.Value.
func (c *CPUs) Type() string { return "decimal" }

// String implements pflag.Value.
func (c *CPUs) String() string {
	if c.Nano == 0 {
		return ""
	}
	return big.NewRat(c.Nano, 1e9).FloatString(3)
}

// Ulimits is --ulimit name=soft[:hard]; the last of a name wins.
type Ulimits struct {
	vals map[string]*units.Ulimit
	keys []string
}

// Set implements pflag.Value.
func (u *Ulimits) Set(v string) error {
	l, err := units.ParseUlimit(v)
	if err != nil {
		return err
	}
	if u.vals == nil {
		u.vals = map[string]*units.Ulimit{}
	}
	if _, ok := u.vals[l.Name]; !ok {
		u.keys = append(u.keys, l.Name)
	}
	u.vals[l.Name] = l
	return nil
}

// Type implements pflag.Value.
func (u *Ulimits) Type() string { return "ulimit" }

// String implements pflag.Value.
func (u *Ulimits) String() string { return fmt.Sprint(u.All()) }

// All are the limits sorted by name; nil when there are none.
func (u *Ulimits) All() []*units.Ulimit {
	var out []*units.Ulimit
	sort.Strings(u.keys)
	for _, k := range u.keys {
		out = append(out, u.vals[k])
	}
	return out
}

// Filter is --filter key=value.
type Filter struct{ vals map[string]map[string]bool }

// Set implements pflag.Value.
func (f *Filter) Set(v string) error {
	if v == "" {
		return nil
	}
	if !strings.Contains(v, "=") {
		return errors.New("bad format of filter (expected name=value)")
	}
	k, val, _ := strings.Cut(v, "=")
	f.Add(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val))
	return nil
}

// Add adds one term.
func (f *Filter) Add(k, v string) {
	if f.vals == nil {
		f.vals = map[string]map[string]bool{}
	}
	if f.vals[k] == nil {
		f.vals[k] = map[string]bool{}
	}
	f.vals[k][v] = true
}

// Type implements pflag.Value.
func (f *Filter) Type() string { return "filter" }

// String implements pflag.Value.
func (f *Filter) String() string { return "" }

// All are the terms; nil when there are none.
func (f *Filter) All() map[string]map[string]bool { return f.vals }

// KVToMap turns key=value strings into a map; without "=" the value is empty.
func KVToMap(kvs []string) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		k, v, _ := strings.Cut(kv, "=")
		m[k] = v
	}
	return m
}

// Label refuses a label without a name.
func Label(v string) (string, error) {
	if name, _, _ := strings.Cut(v, "="); name == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", v)
	}
	return v, nil
}

// ParsePermissions checks the rwm part of --device.
func ParsePermissions(mode string) bool {
	if mode == "" {
		return false
	}
	seen := map[rune]bool{}
	for _, c := range mode {
		if (c != 'r' && c != 'w' && c != 'm') || seen[c] {
			return false
		}
		seen[c] = true
	}
	return true
}

// AbsSource makes a bind source that starts with "." absolute; other sources are left.
func AbsSource(src string) (string, error) {
	if !strings.HasPrefix(src, ".") {
		return src, nil
	}
	return filepath.Abs(src)
}
