package plugin_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/engine/plugin/plugintest"
)

func TestSource(t *testing.T) {
	for name, factory := range map[string]func(*testing.T, map[string]http.Handler) plugin.Source{
		"in memory": func(_ *testing.T, plugins map[string]http.Handler) plugin.Source { return plugintest.Source(plugins) },
		"sockets": func(t *testing.T, plugins map[string]http.Handler) plugin.Source {
			dir := t.TempDir()
			for name, h := range plugins {
				plugintest.Serve(t, dir, name, h)
			}
			return &plugin.Registry{Sockets: []string{t.TempDir(), dir}}
		},
		"spec files": func(t *testing.T, plugins map[string]http.Handler) plugin.Source {
			dir, specs := t.TempDir(), t.TempDir()
			for name, h := range plugins {
				plugintest.Serve(t, dir, name, h)
				if err := os.WriteFile(filepath.Join(specs, name+".spec"), []byte("unix://"+dir+"/"+name+".sock"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			return &plugin.Registry{Specs: []string{specs}}
		},
	} {
		t.Run(name, func(t *testing.T) { plugintest.Run(t, factory) })
	}
}
