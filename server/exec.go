package server

import (
	"net/http"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/common"
	containertypes "github.com/moby/moby/api/types/container"
)

// execAPI are the handlers of /exec and of making execs.
type execAPI struct{ *Server }

func (s execAPI) routes() []route {
	return []route{
		{"POST", "/containers/{id}/exec", s.execCreate},
		{"POST", "/exec/{id}/start", s.execStart},
		{"POST", "/exec/{id}/resize", s.execResize},
		{"GET", "/exec/{id}/json", s.execInspect},
	}
}

func (s execAPI) execCreate(c *call) error {
	var o containertypes.ExecCreateRequest
	if err := c.decode(&o, false); err != nil {
		return err
	}
	if len(o.Cmd) == 0 {
		return errclass.Invalid("No exec command specified")
	}
	if c.version.before(42) {
		o.ConsoleSize = nil
	}
	id, err := s.Containers.ExecCreate(c.steady(), c.vars["id"], o)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, common.IDResponse{ID: id})
}

func (s execAPI) execStart(c *call) error {
	var o containertypes.ExecStartRequest
	if err := c.decode(&o, true); err != nil {
		return err
	}
	if c.version.before(42) {
		o.ConsoleSize = nil
	}
	if o.ConsoleSize != nil && !o.Tty {
		return errclass.Invalid("console size specified with no TTY")
	}
	if err := s.Containers.ExecStart(c.steady(), c.vars["id"], o, c.hijack()); err != nil {
		return err
	}
	if o.Detach {
		return c.done(http.StatusOK)
	}
	return nil
}

func (s execAPI) execResize(c *call) error {
	h, w, err := c.size()
	if err != nil {
		return err
	}
	if err := s.Containers.ExecResize(c.ctx(), c.vars["id"], h, w); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func (s execAPI) execInspect(c *call) error {
	info, err := s.Containers.ExecInspect(c.ctx(), c.vars["id"])
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, info)
}
