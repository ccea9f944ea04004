package driver_test

import (
	"testing"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/driver/drivertest"
)

func TestConformance(t *testing.T) {
	for name, c := range map[string]struct {
		make driver.New
		none bool
	}{
		"host":    {driver.HostNetwork, false},
		"null":    {driver.NoNetwork, true},
		"overlay": {driver.InSwarm, false},
	} {
		t.Run(name, func(t *testing.T) {
			drivertest.Run(t, drivertest.Target{New: c.make, Name: name})
			if got := c.make(nil).Describe().None(); got != c.none {
				t.Errorf("no network at all: %v", got)
			}
		})
	}
}
