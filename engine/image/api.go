// Package image serves the images of one daemon as the API shows them. It resolves references,
// lists, inspects, tags and removes images, and leases them to containers; packages pull and
// archive bring images in and out.
//
// The packages below it, each of which imports only those after it: pull and archive; layers
// (blobs → unpacked layers); names; document; manifest; progress.
package image

import (
	"time"

	"github.com/gantry/gantry/internal/filter"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
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

// ListOptions as GET /images/json takes them.
type ListOptions struct {
	All, SharedSize, Manifests bool
	Filters                    filter.Args
}

// RemoveOptions as DELETE /images/{name} takes them.
type RemoveOptions struct {
	Force, NoPrune bool
	// Running are the IDs of the containers that run, of whatever image. Which containers
	// use the image their leases tell; whether they run only their owner knows.
	Running []string
}

// RootfsLease is a container's hold on its image's layers: while it is there the
// layers stay, whatever happens to the image's names.
type RootfsLease struct {
	// Lower are the overlay lower directories, topmost first.
	Lower []string
	// Created is when the lease was taken.
	Created time.Time
}
