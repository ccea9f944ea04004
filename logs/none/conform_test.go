package none

import (
	"testing"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logtest"
)

func TestConformance(t *testing.T) {
	logtest.Run(t, func(*testing.T) logs.Driver { return Driver{} })
}
