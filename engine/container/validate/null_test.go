package validate

import (
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// TestNull: null for an object in a list is refused, and does not end the daemon when the container starts.
func TestNull(t *testing.T) {
	weight, throttle := []*blkiodev.WeightDevice{nil}, []*blkiodev.ThrottleDevice{{Path: "/dev/zero"}, nil}
	for name, r := range map[string]container.Resources{
		"Ulimits":              {Ulimits: []*container.Ulimit{nil}},
		"BlkioWeightDevice":    {BlkioWeightDevice: weight},
		"BlkioDeviceReadBps":   {BlkioDeviceReadBps: throttle},
		"BlkioDeviceWriteBps":  {BlkioDeviceWriteBps: throttle},
		"BlkioDeviceReadIOps":  {BlkioDeviceReadIOps: throttle},
		"BlkioDeviceWriteIOps": {BlkioDeviceWriteIOps: throttle},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkResources(&container.HostConfig{Resources: r}, 1)
			if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "invalid "+name+":") {
				t.Errorf("%v", err)
			}
		})
	}
}
