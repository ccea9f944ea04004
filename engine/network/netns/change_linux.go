package netns

import (
	"net/netip"
	"os"

	"github.com/gantry/gantry/internal/rtnl"
)

// MoveRoute makes an interface of a container's namespace the default route, by a
// gateway; without namespace or gateway all stays as it is.
func MoveRoute(h Host, ns *os.File, ifName string, gw netip.Addr) error {
	if ns == nil || !gw.IsValid() {
		return nil
	}
	return h.Inside(ns, func() error {
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		l, err := in.LinkByName(ifName)
		if err != nil {
			return err
		}
		_, err = in.Do(rtnl.AddRoute(l.Index, netip.Prefix{}, gw))
		return err
	})
}

// RemoveInterface removes an interface from a container's namespace; one that came from the host
// goes back there, by its name there. One that is gone is an error with ENODEV.
func RemoveInterface(h Host, ns *os.File, ifName, hostName string) error {
	return h.Inside(ns, func() error {
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		if hostName != "" {
			return MoveBack(h, in, ifName, hostName)
		}
		_, err = in.Do(rtnl.DelLink(ifName))
		return err
	})
}
