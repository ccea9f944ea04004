package image

import (
	"context"
	"io"

	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Pull fetches an image, or all tags of a repository, and unpacks it; see package pull.
func (s *Service) Pull(ctx context.Context, o pull.Options, p progress.Sink) error {
	return s.puller.Pull(ctx, o, p)
}

// Load stores the images of an archive, packed or not; see package archive.
func (s *Service) Load(ctx context.Context, r io.Reader, quiet bool, p progress.Sink) error {
	return s.archive.Load(ctx, r, quiet, p)
}

// Save writes images as one tar archive; see package archive.
func (s *Service) Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error {
	return s.archive.Save(ctx, refs, platforms, w)
}

// Login asks a registry whether it takes the credentials. The error is of class
// Unauthenticated when it does not.
func (s *Service) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	if err := s.puller.Login(ctx, a); err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}
