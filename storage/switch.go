package storage

import (
	"context"
	"os"
	"path/filepath"
)

// noteDriver remembers in <data-root>/image/driver which driver has the storage. When it
// was another one before, layers of this one may have lost their last reference since: a
// collection looks for such only once it has seen a layer go, so one is made and removed.
func (s *Store) noteDriver() error {
	name := filepath.Join(s.root, "driver")
	last, err := os.ReadFile(name)
	if err == nil && string(last) == s.about.Name {
		return nil
	}
	if err == nil {
		ctx, key := Context(context.Background()), "extract/driver-changed"
		if _, err := s.Snapshots.Prepare(ctx, key, ""); err != nil {
			return err
		}
		if err := s.Snapshots.Remove(ctx, key); err != nil {
			return err
		}
		s.Collect()
	}
	return os.WriteFile(name, []byte(s.about.Name), 0o600)
}
