package vfs_test

import (
	"testing"

	"github.com/gantry/gantry/storage/driver/drivertest"
	"github.com/gantry/gantry/storage/driver/vfs"
)

func TestDriver(t *testing.T) { drivertest.Run(t, vfs.Open) }
