package engine

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

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
		"default-shm-size":         func(to, from *Config) { to.DefaultShmSize = from.DefaultShmSize },
		"default-stop-timeout":     func(to, from *Config) { to.DefaultStopTimeout = from.DefaultStopTimeout },
		"default-runtime":          func(to, from *Config) { to.DefaultRuntime = from.DefaultRuntime },
		"live-restore":             func(to, from *Config) { to.LiveRestore = from.LiveRestore },
		"max-download-attempts":    func(to, from *Config) { to.MaxDownloadAttempts = from.MaxDownloadAttempts },
	}
}

// merge returns old with next's reloadable options, the names of those that changed,
// and of changed ones that wait for the next start.
func merge(old, next *Config) (merged *Config, changed, later []string) {
	c := *old
	c.set = maps.Clone(old.set)
	known := reloadable()
	for _, name := range slices.Sorted(maps.Keys(next.set)) {
		if old.set[name] == next.set[name] {
			continue
		}
		take, ok := known[name]
		if !ok {
			later = append(later, name)
			continue
		}
		take(&c, next)
		c.set[name] = next.set[name]
		changed = append(changed, name)
	}
	return &c, changed, later
}

// Reload takes over what may change while the daemon runs, and says what may not. The
// event tells, as Docker's, what the reloadable options are now.
func (e *Engine) Reload(next *Config) {
	merged, changed, later := merge(e.config(), next)
	e.cfg.Store(merged)
	setLevel(e.level, merged)
	e.images.Reconfigure(merged.imageConfig())
	e.containers.Reconfigure(merged.DefaultShmSize, merged.stopTimeout(), merged.DefaultRuntime)
	if len(later) > 0 {
		e.log.Warn("these options change with the daemon's next start only", "options", later)
	}
	e.log.Info("configuration reloaded", "changed", changed)
	e.bus.Emit(events.DaemonEventType, events.ActionReload, e.root.id, reloadAttributes(e.host.name, merged))
}

// reloadAttributes are the attributes of a reload event.
func reloadAttributes(name string, c *Config) map[string]string {
	list := func(l []string) string {
		if l == nil {
			l = []string{}
		}
		b, _ := json.Marshal(l) // of strings: it cannot fail
		return string(b)
	}
	return map[string]string{
		"name": name, "debug": strconv.FormatBool(c.Debug), "labels": list(c.Labels),
		"insecure-registries": list(c.InsecureRegistries), "registry-mirrors": list(c.RegistryMirrors),
		"live-restore": "true", "default-runtime": c.DefaultRuntime,
		"default-shm-size":         strconv.FormatInt(c.DefaultShmSize, 10),
		"default-stop-timeout":     strconv.Itoa(c.DefaultStopTimeout),
		"max-concurrent-downloads": strconv.Itoa(c.MaxConcurrentDownloads),
		"max-download-attempts":    strconv.Itoa(c.MaxDownloadAttempts),
		"shutdown-timeout":         strconv.Itoa(c.ShutdownTimeout),
	}
}
