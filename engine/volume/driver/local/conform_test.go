package local

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/engine/volume/driver/drivertest"
)

func open(t *testing.T, root string) *Driver {
	t.Helper()
	d, err := Open(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestConformance(t *testing.T) {
	drivertest.Run(t, func(t *testing.T) driver.Driver { return open(t, t.TempDir()) })
}

// What is half made or half removed is finished.
func TestOpenFinishes(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{".new-x/_data", ".removing-y/_data/sub", "whole/_data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	open(t, root)
	if left, _ := os.ReadDir(root); len(left) != 1 || left[0].Name() != "whole" {
		t.Errorf("left: %v", left)
	}
}
