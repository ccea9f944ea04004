package endpoint

import (
	"context"

	"github.com/moby/moby/api/types/events"
)

// Release gives back what Acquire or Restore took for a container: addresses, ports
// and firewall elements at once, interfaces beside the request. Unknown containers are
// no error: it may be called again. What cannot be undone is logged, not returned:
// the container is gone either way.
func (s *Service) Release(ctx context.Context, containerID string) error {
	s.mu.Lock()
	c := s.containers[containerID]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	c.busy.Lock()
	defer c.busy.Unlock()
	if c.gone {
		return nil
	}
	s.mu.Lock()
	ends := c.ends
	s.mu.Unlock()
	if err := s.ports.Withdraw(containerID, published(ends)); err != nil {
		s.log.Error("removing published ports from the firewall", "container", containerID, "error", err)
	}
	s.ports.Release(recordsOf(ends)...)
	s.stopResolving(c)
	s.locked(func() { c.ends = nil })
	s.forget(c)
	for _, e := range ends {
		e.n.Leave(containerID, &e.Endpoint)
	}
	if err := s.relink(); err != nil {
		s.log.Error("closing the ports of linked containers", "container", containerID, "error", err)
	}
	for _, e := range ends {
		if e.HostIf != "" {
			s.host.Reap(e.HostIf)
		}
		s.detach(ctx, e)
	}
	for _, e := range ends {
		e.n.Emit(s.bus, events.ActionDisconnect, map[string]string{"container": containerID})
	}
	return nil
}
