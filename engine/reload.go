package engine

import (
	"maps"
	"slices"

	"github.com/gantry/gantry/engine/image"
	"github.com/moby/moby/api/types/events"
)

// reloadable are the options that a running daemon takes over, and how.
func reloadable() map[string]func(to, from *Config) {
	return map[string]func(to, from *Config){
		"debug":                    func(to, from *Config) { to.Debug = from.Debug },
		"log-level":                func(to, from *Config) { to.LogLevel = from.LogLevel },
		"label":                    func(to, from *Config) { to.Labels = from.Labels },
		"shutdown-timeout":         func(to, from *Config) { to.ShutdownTimeout = from.ShutdownTimeout },
		"insecure-registry":        func(to, from *Config) { to.InsecureRegistries = from.InsecureRegistries },
		"registry-mirror":          func(to, from *Config) { to.RegistryMirrors = from.RegistryMirrors },
		"max-concurrent-downloads": func(to, from *Config) { to.MaxConcurrentDownloads = from.MaxConcurrentDownloads },
		"max-download-attempts":    func(to, from *Config) { to.MaxDownloadAttempts = from.MaxDownloadAttempts },
	}
}

// ofImages are the reloadable options that engine/image must be told of.
func ofImages() []string {
	return []string{"insecure-registry", "registry-mirror", "max-concurrent-downloads", "max-download-attempts"}
}

// merge returns old with next's reloadable options, the names of those that changed,
// and of changed ones that wait for the next start. keep are not taken over.
func merge(old, next *Config, keep []string) (merged *Config, changed, later []string) {
	c := *old
	c.set = maps.Clone(old.set)
	known := reloadable()
	for _, name := range slices.Sorted(maps.Keys(next.set)) {
		if old.set[name] == next.set[name] {
			continue
		}
		take, ok := known[name]
		if !ok || slices.Contains(keep, name) {
			later = append(later, name)
			continue
		}
		take(&c, next)
		c.set[name] = next.set[name]
		changed = append(changed, name)
	}
	return &c, changed, later
}

// Reload takes over what may change while the daemon runs, and says what may not.
func (e *Engine) Reload(next *Config) {
	images, ok := any(e.images).(interface{ Reconfigure(image.Config) })
	var keep []string
	if !ok {
		keep = ofImages()
	}
	merged, changed, later := merge(e.config(), next, keep)
	e.cfg.Store(merged)
	setLevel(e.level, merged)
	if ok {
		images.Reconfigure(merged.imageConfig())
	}
	if len(later) > 0 {
		e.log.Warn("these options change with the daemon's next start only", "options", later)
	}
	e.log.Info("configuration reloaded", "changed", changed)
	e.bus.Emit(events.DaemonEventType, events.ActionReload, e.root.id, map[string]string{"name": e.host.name})
}
