package image

import (
	"os"
	"testing"

	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/driver/overlay"
)

// needRoot skips tests that make devices, owners and trusted attributes.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func newTestService(t testing.TB, root string, cfg Config) (*Service, *event.Bus) {
	t.Helper()
	needRoot(t)
	st, err := storage.Open(root, overlay.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	if cfg.CertsDir == "" {
		cfg.CertsDir = t.TempDir()
	}
	bus := event.New()
	s, err := New(st, cfg, bus)
	if err != nil {
		t.Fatal(err)
	}
	return s, bus
}
