package spec

import (
	"testing"

	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

// TestNullDevices: a record that an earlier engine kept with null for a device starts.
func TestNullDevices(t *testing.T) {
	h := &container.HostConfig{}
	h.BlkioWeightDevice = []*blkiodev.WeightDevice{nil}
	h.BlkioDeviceReadBps = []*blkiodev.ThrottleDevice{nil}
	if b, err := blockIO(Input{Host: h}); b != nil || err != nil {
		t.Errorf("%v %v", b, err)
	}
}
