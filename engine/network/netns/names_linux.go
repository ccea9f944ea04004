package netns

import (
	"cmp"
	"maps"
	"strconv"

	"github.com/gantry/gantry/internal/errclass"
)

// Named is an interface that gets its name.
type Named struct {
	*Interface
	// Prefix of the name, where none is requested; "" is eth.
	Prefix string
	// Sysctls is what ParseEndpointSysctls reads.
	Sysctls string
}

// Name gives interfaces that have no name their prefix and the next free number, and sets
// their sysctls. Names in has are used already. Errors are of class Invalid.
func Name(ifs []Named, has map[string]bool) error {
	used := map[string]bool{"lo": true}
	maps.Copy(used, has)
	for _, p := range ifs {
		if p.IfName == "" {
			continue
		}
		if used[p.IfName] {
			return errclass.Invalid("interface name %s is wanted twice", p.IfName)
		}
		used[p.IfName] = true
	}
	for _, p := range ifs {
		for i := 0; p.IfName == ""; i++ {
			if name := cmp.Or(p.Prefix, "eth") + strconv.Itoa(i); !used[name] {
				p.IfName, used[name] = name, true
			}
		}
		if p.Sysctls == "" {
			continue
		}
		var err error
		if p.Interface.Sysctls, err = ParseEndpointSysctls(p.Sysctls, p.IfName); err != nil {
			return err
		}
	}
	return nil
}
