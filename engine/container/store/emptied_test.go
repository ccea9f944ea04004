package store

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/container"
)

// TestEmptyRecord: what the machine's end emptied is as if it had not been written.
func TestEmptyRecord(t *testing.T) {
	f, err := Open(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, remove := range []bool{false, true} {
		r := &Record{Schema: Schema, ID: id.New(), Config: &container.Config{}, HostConfig: &container.HostConfig{AutoRemove: remove}}
		if err := os.MkdirAll(f.Dir(r.ID), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := f.SaveRecord(r); err != nil {
			t.Fatal(err)
		}
		if got, err := f.Record(r.ID); err != nil || got.ID != r.ID || got.HostConfig.AutoRemove != remove {
			t.Errorf("%+v %v", got, err)
		}
		if err := os.Truncate(filepath.Join(f.Dir(r.ID), "config.json"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Record(r.ID); !errdefs.IsNotFound(err) {
			t.Errorf("empty: %v", err)
		}
	}
}
