package image

import (
	"context"

	"github.com/gantry/gantry/internal/errclass"
)

// cleanUp removes what unfinished work left.
func (s *Service) cleanUp() error {
	s.store.Collect()
	return nil
}

// unpackStored unpacks an image whose blobs are here but whose layers are not.
func (s *Service) unpackStored(_ context.Context, img *Image) error {
	return errclass.NotImplemented("unpacking %s later is not built yet", img.ID)
}
