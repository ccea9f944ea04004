package driver

import "slices"

// Table is which drivers there are: those of the engine by their names, and Plugin for every
// other name.
type Table struct {
	Builtin map[string]New
	Plugin  New
}

// Open makes all drivers, working on one host.
func (t Table) Open(h Host) Set {
	s := Set{builtin: map[string]Driver{}, plugin: t.Plugin(h)}
	for name, open := range t.Builtin {
		s.builtin[name] = open(h)
	}
	return s
}

// Set is the drivers that there are.
type Set struct {
	builtin map[string]Driver
	plugin  Driver
}

// Get returns the driver of a name. A name that no built-in driver has is a plugin's. The
// plugin may not exist; then Start says so.
func (s Set) Get(name string) Driver {
	if d, ok := s.builtin[name]; ok {
		return d
	}
	return s.plugin
}

// Names are the built-in drivers of one scope, sorted.
func (s Set) Names(scope string) []string {
	var out []string
	for name, d := range s.builtin {
		if d.Describe().Scope == scope {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
