package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/moby/moby/api/types/system"
)

// builtinRuntimes are the names of our own OCI runtime: "runc" is accepted for it, since
// scripts ask for that.
func builtinRuntimes() []string { return []string{RuntimeName, "runc"} }

// runtimes are all OCI runtimes by name; nil is our own.
func (c *Config) runtimes() map[string]*ociruntime.Ref {
	all := make(map[string]*ociruntime.Ref, len(c.Runtimes)+2)
	for _, name := range builtinRuntimes() {
		all[name] = nil
	}
	for name, r := range c.Runtimes {
		all[name] = &r
	}
	return all
}

// runtimeInfo is what info shows of the runtimes; own is the path of ours.
func (c *Config) runtimeInfo(own string) map[string]system.RuntimeWithStatus {
	info := map[string]system.RuntimeWithStatus{}
	for name, r := range c.runtimes() {
		shown := system.Runtime{Path: own}
		if r != nil {
			shown = system.Runtime{Path: r.Path, Args: r.Args}
		}
		info[name] = system.RuntimeWithStatus{Runtime: shown}
	}
	return info
}

// runtimesValue takes "name=path", or, from the file, "name={…}" as the file has it.
type runtimesValue struct{ m map[string]ociruntime.Ref }

func (v runtimesValue) String() string {
	list := make([]string, 0, len(v.m))
	for _, name := range slices.Sorted(maps.Keys(v.m)) {
		list = append(list, strings.Join(append([]string{name + "=" + v.m[name].Path}, v.m[name].Args...), " "))
	}
	if len(list) == 0 {
		return ""
	}
	return fmt.Sprint(list)
}

func (v runtimesValue) Type() string { return "runtimes" }

func (v runtimesValue) Set(s string) error {
	name, value, _ := strings.Cut(s, "=")
	name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
	switch _, twice := v.m[name]; {
	case name == "" || value == "":
		return errclass.Invalid("invalid runtime argument: %s", s)
	case slices.Contains(builtinRuntimes(), name):
		return errclass.Invalid("runtime name '%s' is reserved", name)
	case twice:
		return errclass.Invalid("runtime '%s' was already defined", name)
	}
	r := fileRuntime{Path: value}
	if strings.HasPrefix(value, "{") {
		r = fileRuntime{}
		if err := json.Unmarshal([]byte(value), &r); err != nil {
			return err
		}
	}
	switch {
	case r.Type != "":
		return errclass.Invalid("runtime '%s': runtimeType is not built yet in this engine (path is)", name)
	case r.Path == "":
		return errclass.Invalid("runtime '%s': either path or runtimeType must be configured", name)
	}
	v.m[name] = ociruntime.Ref{Path: r.Path, Args: r.Args}
	return nil
}

// fileRuntime is one runtime in daemon.json.
type fileRuntime struct {
	Path string   `json:"path"`
	Args []string `json:"runtimeArgs"`
	Type string   `json:"runtimeType"`
}

// runtimeValues turns the file's runtimes into the words that the flag takes.
func runtimeValues(raw json.RawMessage) ([]string, error) {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if !strings.HasPrefix(string(m[name]), "{") {
			return nil, errclass.Invalid("runtime '%s' is no object", name)
		}
		out = append(out, name+"="+string(m[name]))
	}
	return out, nil
}
