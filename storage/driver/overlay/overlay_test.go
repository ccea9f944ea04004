package overlay_test

import (
	"testing"

	"github.com/gantry/gantry/storage/driver/drivertest"
	"github.com/gantry/gantry/storage/driver/overlay"
)

func TestDriver(t *testing.T) { drivertest.Run(t, overlay.Open) }
