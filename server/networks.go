package server

import (
	"net/http"

	networktypes "github.com/moby/moby/api/types/network"
)

// networkAPI are the handlers of /networks.
type networkAPI struct{ *Server }

func (s networkAPI) routes() []route {
	return []route{
		{"GET", "/networks", s.networkList},
		{"GET", "/networks/", s.networkList},
		{"GET", "/networks/{id...}", s.networkInspect},
		{"POST", "/networks/create", s.networkCreate},
		{"POST", "/networks/prune", s.networkPrune},
		{"POST", "/networks/{id}/connect", s.networkConnect},
		{"POST", "/networks/{id}/disconnect", s.networkDisconnect},
		{"DELETE", "/networks/{id...}", s.networkRemove},
	}
}

func (s networkAPI) networkList(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	list, err := s.Networks.List(c.ctx(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, listOf(list))
}

func (s networkAPI) networkInspect(c *call) error {
	n, err := s.Networks.Inspect(c.ctx(), c.vars["id"])
	if err != nil {
		return err
	}
	if c.version.before(52) {
		n.Status = nil
	}
	return c.json(http.StatusOK, n)
}

func (s networkAPI) networkCreate(c *call) error {
	var r struct {
		networktypes.CreateRequest
		// CheckDuplicate is of clients before 1.44; names are unique always.
		CheckDuplicate bool
	}
	if err := c.decode(&r, false); err != nil {
		return err
	}
	if c.version.before(48) {
		r.EnableIPv4 = nil // not known yet: every network had IPv4
	}
	resp, err := s.Networks.Create(c.steady(), r.CreateRequest)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, resp)
}

func (s networkAPI) networkRemove(c *call) error {
	if err := s.Networks.Remove(c.steady(), c.vars["id"]); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func (s networkAPI) networkPrune(c *call) error {
	f, err := c.filters()
	if err != nil {
		return err
	}
	report, err := s.Networks.Prune(c.steady(), f)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, report)
}

func (s networkAPI) networkConnect(c *call) error {
	var r networktypes.ConnectRequest
	if err := c.decode(&r, false); err != nil {
		return err
	}
	if err := s.Containers.NetworkConnect(c.steady(), c.vars["id"], r.Container, r.EndpointConfig); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func (s networkAPI) networkDisconnect(c *call) error {
	var r networktypes.DisconnectRequest
	if err := c.decode(&r, false); err != nil {
		return err
	}
	if err := s.Containers.NetworkDisconnect(c.steady(), c.vars["id"], r.Container, r.Force); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}
