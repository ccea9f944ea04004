package server

import (
	"net/http"
	"strings"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	containertypes "github.com/moby/moby/api/types/container"
)

// containerAPI are the handlers of /containers.
type containerAPI struct{ *Server }

func (s containerAPI) routes() []route {
	return []route{
		{"GET", "/containers/json", s.containerList},
		{"POST", "/containers/create", s.containerCreate},
		{"POST", "/containers/prune", s.containerPrune},
		{"GET", "/containers/{id...}/json", s.containerInspect},
		{"GET", "/containers/{id}/top", s.containerTop},
		{"GET", "/containers/{id}/logs", s.containerLogs},
		{"GET", "/containers/{id}/export", s.containerExport},
		{"GET", "/containers/{id}/changes", s.containerChanges},
		{"POST", "/containers/{id}/resize", s.containerResize},
		{"POST", "/containers/{id}/start", s.containerStart},
		{"POST", "/containers/{id}/stop", s.containerStop},
		{"POST", "/containers/{id}/restart", s.containerRestart},
		{"POST", "/containers/{id}/kill", s.containerKill},
		{"POST", "/containers/{id}/rename", s.containerRename},
		{"POST", "/containers/{id}/pause", s.containerPause},
		{"POST", "/containers/{id}/unpause", s.containerUnpause},
		{"POST", "/containers/{id}/attach", s.containerAttach},
		{"POST", "/containers/{id}/wait", s.containerWait},
		{"DELETE", "/containers/{id...}", s.containerDelete},
		{"POST", extension.RunPath, s.containerRun},
	}
}

func (s containerAPI) containerList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	if _, ok := f["annotation"]; ok && c.version.before(56) {
		return errclass.Invalid("invalid filter 'annotation'")
	}
	// Before filters there were two parameters of their own.
	for _, old := range []string{"since", "before"} {
		if v := c.query.Get(old); v != "" {
			if f == nil {
				f = filter.Args{}
			}
			f[old] = append(f[old], v)
		}
	}
	limit, err := c.number("limit", 0)
	if err != nil {
		return err
	}
	list, err := s.Containers.List(c.ctx(), container.ListOptions{
		All: c.flag("all"), Limit: limit, Size: c.flag("size"), Filters: f,
	})
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, lowerSummaries(listOf(list), c.version))
}

func (s containerAPI) containerCreate(c *call) error {
	resp, err := s.create(c)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, resp)
}

// create makes the container that the request's body and query describe.
func (s containerAPI) create(c *call) (resp containertypes.CreateResponse, err error) {
	var body createBody
	if err := c.decode(&body, false); err != nil {
		return resp, err
	}
	o, warnings, err := raiseCreate(body, c.version)
	if err != nil {
		return resp, err
	}
	o.Name = c.query.Get("name")
	if p := c.query.Get("platform"); p != "" && !c.version.before(41) {
		platform, err := parsePlatform(p)
		if err != nil {
			return resp, err
		}
		o.Platform = &platform
	}
	if resp, err = s.Containers.Create(c.steady(), o); err != nil {
		return resp, err
	}
	resp.Warnings = append(listOf(warnings), resp.Warnings...)
	return resp, nil
}

func (s containerAPI) containerPrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Containers.Prune(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}

func (s containerAPI) containerInspect(c *call) error {
	info, err := s.Containers.Inspect(c.ctx(), c.vars["id"], c.flag("size"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, lowerInspect(info, c.version))
}

func (s containerAPI) containerTop(c *call) error {
	top, err := s.Containers.Top(c.ctx(), c.vars["id"], strings.Fields(c.query.Get("ps_args")))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, top)
}

// containerExport ends the connection when it fails in the middle: an archive that was cut off
// must not look whole.
func (s containerAPI) containerExport(c *call) error {
	ctx, cancel := c.stream()
	defer cancel()
	return s.Containers.Export(ctx, c.vars["id"], &tarBody{c: c, mediaType: "application/octet-stream"})
}

// containerChanges answers null when there are none, as Docker does.
func (s containerAPI) containerChanges(c *call) error {
	list, err := s.Containers.Changes(c.ctx(), c.vars["id"])
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, list)
}

func (s containerAPI) containerResize(c *call) error {
	h, w, err := c.size()
	if err != nil {
		return err
	}
	if err := s.Containers.Resize(c.ctx(), c.vars["id"], h, w); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

// containerStart ignores a body: settings there were deprecated with 1.22 and
// refused by Docker from 1.24 on unless they are empty.
func (s containerAPI) containerStart(c *call) error {
	if c.query.Get("checkpoint") != "" {
		return errclass.NotImplemented("starting from a checkpoint is not built yet in this engine")
	}
	if c.r.ContentLength > 7 || c.r.ContentLength == -1 { // "null\r\n", "{}" pass, as with Docker
		return errclass.Invalid("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	if err := s.Containers.Start(c.steady(), c.vars["id"]); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (c *call) stopOptions() (container.StopOptions, error) {
	var o container.StopOptions
	if !c.version.before(42) {
		o.Signal = c.query.Get("signal")
	}
	if c.query.Get("t") != "" {
		t, err := c.number("t", 0)
		if err != nil {
			return o, err
		}
		o.Timeout = &t
	}
	return o, nil
}

func (s containerAPI) containerStop(c *call) error {
	o, err := c.stopOptions()
	if err != nil {
		return err
	}
	if err := s.Containers.Stop(c.steady(), c.vars["id"], o); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s containerAPI) containerRestart(c *call) error {
	o, err := c.stopOptions()
	if err != nil {
		return err
	}
	if err := s.Containers.Restart(c.steady(), c.vars["id"], o); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s containerAPI) containerKill(c *call) error {
	if err := s.Containers.Kill(c.steady(), c.vars["id"], c.query.Get("signal")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s containerAPI) containerRename(c *call) error {
	if err := s.Containers.Rename(c.steady(), c.vars["id"], c.query.Get("name")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s containerAPI) containerPause(c *call) error {
	if err := s.Containers.Pause(c.steady(), c.vars["id"]); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s containerAPI) containerUnpause(c *call) error {
	if err := s.Containers.Unpause(c.steady(), c.vars["id"]); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s containerAPI) containerDelete(c *call) error {
	o := container.RemoveOptions{Force: c.flag("force"), Volumes: c.flag("v"), Link: c.flag("link")}
	if err := s.Containers.Remove(c.steady(), c.vars["id"], o); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// containerWait sends the header as soon as the wait stands, so that a client can
// start the container knowing that its end will not be missed.
func (s containerAPI) containerWait(c *call) error {
	cond, err := waitCondition(c)
	if err != nil {
		return err
	}
	ctx, cancel := c.stream()
	defer cancel()
	result, err := s.Containers.Wait(ctx, c.vars["id"], cond)
	if err != nil {
		return err
	}
	early := !c.version.before(30) // older clients take the status code for the result
	if early {
		c.w.Header().Set("Content-Type", "application/json")
		c.w.WriteHeader(http.StatusOK)
		c.w.Flush()
	}
	select {
	case resp := <-result:
		if c.version.before(30) {
			return c.json(http.StatusOK, map[string]int64{"StatusCode": resp.StatusCode})
		}
		return c.line(resp)
	case <-ctx.Done():
		return errclass.Unavailable("wait ended: %w", ctx.Err())
	}
}

func waitCondition(c *call) (containertypes.WaitCondition, error) {
	if c.version.before(30) {
		return containertypes.WaitConditionNotRunning, nil
	}
	switch v := containertypes.WaitCondition(c.query.Get("condition")); v {
	case "", containertypes.WaitConditionNotRunning:
		return containertypes.WaitConditionNotRunning, nil
	case containertypes.WaitConditionNextExit, containertypes.WaitConditionRemoved:
		return v, nil
	default:
		return "", errclass.Invalid("invalid condition: %q", string(v))
	}
}
