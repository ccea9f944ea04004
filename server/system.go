package server

import (
	"maps"
	"net/http"
	"net/http/pprof"

	"github.com/gantry/gantry/internal/errclass"
	registrytypes "github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"
)

// builderVersion tells clients which builder to use by default: 1 sends them to
// POST /build, which says clearly that it isn't built yet; 2 (BuildKit) would make
// the command line fail with an unrelated message about a missing plugin.
const builderVersion = "1"

// systemAPI are the handlers about the engine as a whole.
type systemAPI struct{ *Server }

func (s systemAPI) routes() []route {
	return []route{
		{"GET", "/_ping", s.ping},
		{"HEAD", "/_ping", s.ping},
		{"GET", "/version", s.version},
		{"GET", "/info", s.info},
		{"GET", "/events", s.events},
		{"POST", "/auth", s.auth},
	}
}

func (s systemAPI) ping(c *call) error {
	h := c.w.Header()
	h.Set("Builder-Version", builderVersion)
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if c.r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return c.done(http.StatusOK)
	}
	_, _ = c.w.Write([]byte("OK")) // the client is gone: nobody to tell
	return nil
}

func (s systemAPI) version(c *call) error {
	v := s.System.Version(c.ctx())
	v.APIVersion, v.MinAPIVersion = MaxAPIVersion, MinAPIVersion
	for i, part := range v.Components {
		if part.Name == "Engine" {
			details := maps.Clone(part.Details)
			if details == nil {
				details = map[string]string{}
			}
			details["ApiVersion"], details["MinAPIVersion"] = MaxAPIVersion, MinAPIVersion
			v.Components[i].Details = details
		}
	}
	return c.json(http.StatusOK, v)
}

// legacyInfo has fields of the info answer that newer versions dropped.
type legacyInfo struct {
	systemtypes.Info
	BridgeNfIptables  bool `json:"BridgeNfIptables"`
	BridgeNfIP6tables bool `json:"BridgeNfIp6tables"`
	KernelMemoryTCP   bool
}

func (s systemAPI) info(c *call) error {
	info, err := s.System.Info(c.ctx())
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, lowerInfo(info, c.version))
}

// lowerInfo turns the newest info answer into that of version v.
func lowerInfo(info systemtypes.Info, v apiVersion) any {
	if v.before(44) {
		runtimes := map[string]systemtypes.RuntimeWithStatus{}
		for name, r := range info.Runtimes {
			r.Status = nil
			runtimes[name] = r
		}
		info.Runtimes = runtimes
	}
	if v.before(46) {
		info.Containerd = nil
	}
	if v.before(49) {
		info.FirewallBackend = nil
	}
	if v.before(50) {
		info.DiscoveredDevices = nil
		return legacyInfo{Info: info}
	}
	if v.before(53) {
		info.NRI = nil
	}
	return info
}

func (s systemAPI) auth(c *call) error {
	var a registrytypes.AuthConfig
	if err := c.decode(&a, false); err != nil {
		return err
	}
	resp, err := s.System.Auth(c.ctx(), a)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, resp)
}

// debugRoutes are Go's profiles, only while the daemon runs with --debug.
func (s systemAPI) debugRoutes() []route {
	guard := func(h http.HandlerFunc) handler {
		return func(c *call) error {
			if !s.Debug() {
				return errclass.NotFound("page not found")
			}
			h(c.w, c.r)
			return nil
		}
	}
	return []route{
		{"GET", "/debug/pprof/", guard(pprof.Index)},
		{"GET", "/debug/pprof/cmdline", guard(pprof.Cmdline)},
		{"GET", "/debug/pprof/profile", guard(pprof.Profile)},
		{"GET", "/debug/pprof/symbol", guard(pprof.Symbol)},
		{"GET", "/debug/pprof/trace", guard(pprof.Trace)},
		{"GET", "/debug/pprof/{name}", func(c *call) error {
			return guard(pprof.Handler(c.vars["name"]).ServeHTTP)(c)
		}},
	}
}
