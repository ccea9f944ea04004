// Package archive loads images from tar archives and saves images to them. It knows two
// formats: OCI layouts, and Docker's older one with manifest.json.
package archive

import (
	"context"

	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/layers"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Names is what loading and saving ask of package names; see there for the contracts.
type Names interface {
	Find(ref string) (names.Found, error)
	Tags(repo string) []names.Tagged
	Of(target digest.Digest) []string
	Set(ctx context.Context, name string, target ocispec.Descriptor) (*ocispec.Descriptor, error)
	Emit(action events.Action, id, name string)
}

// Service loads into and saves from one store. Safe for concurrent use.
type Service struct {
	store    *storage.Store
	docs     *document.Store
	layers   *layers.Unpacker
	names    Names
	platform ocispec.Platform
}

// New returns a service over others, which stay the caller's. platform is the one whose
// images are unpacked when they are loaded.
func New(store *storage.Store, docs *document.Store, l *layers.Unpacker, n Names, platform ocispec.Platform) *Service {
	return &Service{store: store, docs: docs, layers: l, names: n, platform: platform}
}
