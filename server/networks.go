package server

import "net/http"

func (s *Server) networkRoutes() []route {
	return []route{
		{"GET", "/networks", s.networkList},
		{"GET", "/networks/", s.networkList},
		{"GET", "/networks/{id...}", s.networkInspect},
	}
}

func (s *Server) networkList(c *call) error {
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

func (s *Server) networkInspect(c *call) error {
	n, err := s.Networks.Inspect(c.ctx(), c.vars["id"])
	if err != nil {
		return err
	}
	if c.version.before(52) {
		n.Status = nil
	}
	return c.json(http.StatusOK, n)
}
