package drivertest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/plugin/plugintest"
)

// Plugin is a volume plugin that keeps what it knows in a directory, so that it may be killed and
// go on: NAME/data, NAME/opts, and one file below NAME/users for each id that has it mounted. The
// option fail=METHOD lets that method fail for the volume.
type Plugin struct {
	*plugintest.Plugin
	Dir string // where it keeps them
}

// NewPlugin makes a plugin on a directory, which must be there.
func NewPlugin(dir string) *Plugin {
	p := &Plugin{plugintest.New("VolumeDriver"), dir}
	for method, f := range map[string]func(request) (any, error){
		"Create": p.create, "Remove": p.remove, "Mount": p.mount, "Unmount": p.unmount, "Path": p.path, "Get": p.get, "List": p.list,
		"Capabilities": func(request) (any, error) {
			return map[string]any{"Capabilities": map[string]string{"Scope": "GLOBAL"}}, nil
		},
	} {
		p.Handle("VolumeDriver."+method, func(body []byte) (any, error) {
			var r request
			if err := json.Unmarshal(body, &r); err != nil {
				return nil, err
			}
			if strings.ContainsAny(r.Name, "/\x00") || strings.HasPrefix(r.Name, ".") || len(r.Name) > 200 {
				return nil, errors.New("bad name")
			}
			if p.opts(r.Name)["fail"] == method || r.Opts["fail"] == method {
				return nil, errors.New(method + " was told to fail")
			}
			return f(r)
		})
	}
	return p
}

type request struct {
	Name, ID string
	Opts     map[string]string
}

func (p *Plugin) at(parts ...string) string {
	return filepath.Join(append([]string{p.Dir}, parts...)...)
}

func (p *Plugin) opts(name string) (opts map[string]string) {
	if data, err := os.ReadFile(p.at(name, "opts")); err == nil && name != "" {
		_ = json.Unmarshal(data, &opts)
	}
	return opts
}

// Users are the ids that have a volume mounted.
func (p *Plugin) Users(name string) (ids []string) {
	entries, err := os.ReadDir(p.at(name, "users"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

func (p *Plugin) there(name string) error {
	if _, err := os.Stat(p.at(name, "opts")); err != nil || name == "" {
		return errors.New("no volume " + name)
	}
	return nil
}

func (p *Plugin) create(r request) (any, error) {
	if r.Name == "" {
		return nil, errors.New("a volume needs a name")
	}
	if p.there(r.Name) == nil {
		return nil, nil
	}
	data, err := json.Marshal(r.Opts)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{"data", "users"} {
		if err := os.MkdirAll(p.at(r.Name, d), 0o755); err != nil {
			return nil, err
		}
	}
	return nil, os.WriteFile(p.at(r.Name, "opts"), data, 0o600)
}

func (p *Plugin) remove(r request) (any, error) {
	if err := p.there(r.Name); err != nil {
		return nil, err
	}
	if users := p.Users(r.Name); len(users) > 0 {
		return nil, errors.New("volume is mounted by " + strings.Join(users, " "))
	}
	return nil, os.RemoveAll(p.at(r.Name))
}

func (p *Plugin) mountpoint(name string) map[string]string {
	if len(p.Users(name)) == 0 {
		return map[string]string{"Mountpoint": ""}
	}
	return map[string]string{"Mountpoint": p.at(name, "data")}
}

func (p *Plugin) mount(r request) (any, error) {
	if err := p.there(r.Name); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.at(r.Name, "users", r.ID), nil, 0o600); err != nil {
		return nil, err
	}
	return p.mountpoint(r.Name), nil
}

func (p *Plugin) unmount(r request) (any, error) {
	if err := p.there(r.Name); err != nil {
		return nil, err
	}
	if err := os.Remove(p.at(r.Name, "users", r.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, nil
}

func (p *Plugin) path(r request) (any, error) {
	if err := p.there(r.Name); err != nil {
		return nil, err
	}
	return p.mountpoint(r.Name), nil
}

func (p *Plugin) get(r request) (any, error) {
	if err := p.there(r.Name); err != nil {
		return nil, err
	}
	return map[string]any{"Volume": map[string]any{
		"Name": r.Name, "Mountpoint": p.mountpoint(r.Name)["Mountpoint"], "CreatedAt": time.Unix(1e9, 0).UTC().Format(time.RFC3339),
		"Status": map[string]any{"users": len(p.Users(r.Name)), "opts": p.opts(r.Name)},
	}}, nil
}

func (p *Plugin) list(request) (any, error) {
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return nil, err
	}
	list := []map[string]string{}
	for _, e := range entries {
		list = append(list, map[string]string{"Name": e.Name(), "Mountpoint": p.mountpoint(e.Name())["Mountpoint"]})
	}
	return map[string]any{"Volumes": list}, nil
}

var _ http.Handler = (*Plugin)(nil)
