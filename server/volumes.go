package server

import (
	"net/http"

	volumetypes "github.com/moby/moby/api/types/volume"
)

// volumeAPI are the handlers of /volumes.
type volumeAPI struct{ *Server }

func (s volumeAPI) routes() []route {
	return []route{
		{"GET", "/volumes", s.volumeList},
		{"GET", "/volumes/{name}", s.volumeInspect},
		{"POST", "/volumes/create", s.volumeCreate},
		{"POST", "/volumes/prune", s.volumePrune},
		{"DELETE", "/volumes/{name}", s.volumeRemove},
	}
}

func (s volumeAPI) volumeList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	list, warnings, err := s.Volumes.List(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, volumetypes.ListResponse{Volumes: listOf(list), Warnings: warnings})
}

func (s volumeAPI) volumeInspect(c *call) error {
	v, err := s.Volumes.Inspect(c.ctx(), c.vars["name"])
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, v)
}

func (s volumeAPI) volumeCreate(c *call) error {
	var r volumetypes.CreateRequest
	if err := c.decode(&r, false); err != nil {
		return err
	}
	v, err := s.Volumes.Create(c.steady(), r)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, v)
}

func (s volumeAPI) volumeRemove(c *call) error {
	if err := s.Volumes.Remove(c.steady(), c.vars["name"], c.flag("force")); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

// volumePrune: before 1.42 named volumes were pruned too.
func (s volumeAPI) volumePrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Volumes.Prune(c.steady(), f, c.version.before(42))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}
