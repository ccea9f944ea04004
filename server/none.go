package server

import (
	"net/http"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/plugin"
)

// noneAPI answers questions about objects that this engine cannot have yet:
// plugins. None is there, so lists are empty and nothing is found; that lets clients that look a name up among all kinds of objects go on. What would make
// or change one answers 501.
type noneAPI struct{ *Server }

func (s noneAPI) routes() []route {
	return []route{
		{"GET", "/plugins", s.plugins},
		{"GET", "/plugins/{name...}/json", s.plugin},
	}
}

func (s noneAPI) plugins(c *call) error {
	if _, err := c.filters(); err != nil {
		return err
	}
	return c.json(http.StatusOK, plugin.ListResponse{})
}

func (s noneAPI) plugin(c *call) error {
	return errclass.NotFound("plugin %q not found", c.vars["name"])
}
