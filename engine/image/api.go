// Package image holds references, pull, load, save, inspection and deletion of
// images over the storage package. Safe for concurrent use.
package image

import (
	"time"

	"github.com/gantry/gantry/internal/filter"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is one image resolved for one platform, as a container needs it.
type Image struct {
	// ID is the digest people see: that of the index or manifest the name points to.
	ID digest.Digest
	// Target is what the name points to; Manifest the platform's manifest in it.
	Target, Manifest ocispec.Descriptor
	// Config is the image configuration with Docker's extensions (healthcheck, …).
	Config dockerspec.DockerOCIImage
	// ConfigDesc is the descriptor of the configuration.
	ConfigDesc ocispec.Descriptor
	// Chain is the snapshot key (chain ID) of the topmost layer; "" without layers.
	Chain string
	// Names are the references that point to Target, familiar form.
	Names []string
}

// PullOptions as POST /images/create takes them.
type PullOptions struct {
	Ref      string // familiar reference, or "repo@digest"
	AllTags  bool
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig // nil: anonymous
	// Headers of the client's request that go on to the registry (X-Meta-*).
	Headers map[string][]string
}

// Progress receives what a pull, load or push does, in Docker's terms: the status
// line of a layer or of the whole. Implementations are safe for concurrent use.
type Progress interface {
	// Update reports on one layer (short id, "" for the whole): status such as
	// "Downloading", and how far it is, both 0 when that is not told.
	Update(id, status string, current, total int64)
	// Aux sends a machine-readable message.
	Aux(v any)
}

// ListOptions as GET /images/json takes them.
type ListOptions struct {
	All, SharedSize, Manifests bool
	Filters                    filter.Args
}

// RemoveOptions as DELETE /images/{name} takes them. InUse tells, for an image ID,
// the short id of a container that uses it and whether that one runs; "" for none.
type RemoveOptions struct {
	Force, NoPrune bool
}

// RootfsLease is a container's hold on its image's layers: while it is there the
// layers stay, whatever happens to the image's names.
type RootfsLease struct {
	// Lower are the overlay lower directories, topmost first.
	Lower []string
	// Created is when the lease was taken.
	Created time.Time
}
