package server

import "net/http"

// networkAPI are the handlers of /networks.
type networkAPI struct{ *Server }

func (s networkAPI) routes() []route {
	return []route{
		{"GET", "/networks", s.networkList},
		{"GET", "/networks/", s.networkList},
		{"GET", "/networks/{id...}", s.networkInspect},
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
