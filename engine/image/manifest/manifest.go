// Package manifest decodes an image's documents: indexes, manifests and configurations. They
// are foreign input, so this package checks sizes, counts and types, once. All functions are
// pure; errors are of class InvalidArgument unless their comment says otherwise.
package manifest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/gantry/gantry/internal/errclass"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// MaxSize bounds an index or manifest, in bytes.
	MaxSize = 4 << 20
	// MaxConfig bounds a configuration, in bytes.
	MaxConfig = 8 << 20
	// MaxLayers bounds the layers of an image: overlay takes at most 500 lower
	// directories, and Docker makes at most 127.
	MaxLayers = 400
	// MaxManifests bounds the entries of an index.
	MaxManifests = 1024
	// MaxDepth bounds how many indexes are nested.
	MaxDepth = 4

	schema1       = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// IsIndex and IsManifest tell what a media type stands for.
func IsIndex(mt string) bool { return images.IsIndexType(mt) }

// IsManifest reports whether mt is the media type of a manifest of one platform.
func IsManifest(mt string) bool { return images.IsManifestType(mt) }

// IsSchema1 reports whether mt is of Docker's first image format, which nobody reads any more.
func IsSchema1(mt string) bool { return mt == schema1 || mt == schema1Signed }

// ErrSchema1 is the error for images of that format.
func ErrSchema1(ref string) error {
	return errclass.With(errdefs.ErrInvalidArgument, fmt.Errorf("Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of %s to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/", ref))
}

// shape is what tells the documents apart.
type shape struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Config        json.RawMessage `json:"config"`
	Layers        json.RawMessage `json:"layers"`
	Manifests     json.RawMessage `json:"manifests"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

// Sniff returns the media type of a document: the one it names, else what its members
// imply. declared is what the sender called it ("" is anything); the two must agree,
// and a document must not be a manifest and an index at once, because two readers
// could then see two different images.
func Sniff(data []byte, declared string) (string, error) {
	if len(data) > MaxSize {
		return "", errclass.Invalid("manifest of %d bytes is larger than %d", len(data), MaxSize)
	}
	var s shape
	if err := json.Unmarshal(data, &s); err != nil {
		return "", errclass.Invalid("invalid manifest: %v", err)
	}
	if s.SchemaVersion == 1 || present(s.FSLayers) || IsSchema1(s.MediaType) {
		return schema1, nil
	}
	index, err := s.isIndex()
	if err != nil {
		return "", err
	}
	mt, err := s.mediaType(declared, index)
	switch {
	case err != nil:
		return "", err
	case IsIndex(mt) != index:
		return "", errclass.Invalid("invalid manifest: its media type %q does not fit its members", mt)
	case declared != "" && (IsIndex(declared) || IsManifest(declared)) && declared != mt:
		return "", errclass.Invalid("invalid manifest: sent as %q, it calls itself %q", declared, mt)
	}
	return mt, nil
}

// isIndex tells by its members whether a document is an index or a manifest.
func (s *shape) isIndex() (bool, error) {
	index, single := present(s.Manifests), present(s.Config) || present(s.Layers)
	switch {
	case index && single:
		return false, errclass.Invalid("invalid manifest: it has both an index's and a manifest's members")
	case !index && !single:
		return false, errclass.Invalid("invalid manifest: it has neither layers nor manifests")
	}
	return index, nil
}

// mediaType is the type that a document names, else the one that the sender declared, else
// that of its members.
func (s *shape) mediaType(declared string, index bool) (string, error) {
	mt := s.MediaType
	if mt == "" {
		mt = declared
	}
	switch {
	case IsIndex(mt) || IsManifest(mt):
		return mt, nil
	case s.MediaType != "":
		return "", errclass.Invalid("unsupported manifest media type %q", s.MediaType)
	case index:
		return ocispec.MediaTypeImageIndex, nil
	}
	return ocispec.MediaTypeImageManifest, nil
}

func present(m json.RawMessage) bool { return len(m) > 0 && string(m) != "null" }

// ParseIndex decodes an index or manifest list.
func ParseIndex(data []byte, declared string) (*ocispec.Index, error) {
	mt, err := Sniff(data, declared)
	if err != nil {
		return nil, err
	}
	if !IsIndex(mt) {
		return nil, errclass.Invalid("not an index: %s", mt)
	}
	var ix ocispec.Index
	if err := json.Unmarshal(data, &ix); err != nil {
		return nil, errclass.Invalid("invalid index: %v", err)
	}
	if len(ix.Manifests) > MaxManifests {
		return nil, errclass.Invalid("index has %d manifests, more than %d", len(ix.Manifests), MaxManifests)
	}
	for i := range ix.Manifests {
		if err := checkDescriptor(&ix.Manifests[i], MaxSize); err != nil {
			return nil, err
		}
	}
	ix.MediaType = mt
	return &ix, nil
}

// ParseManifest decodes the manifest of one platform.
func ParseManifest(data []byte, declared string) (*ocispec.Manifest, error) {
	mt, err := Sniff(data, declared)
	if err != nil {
		return nil, err
	}
	if IsSchema1(mt) {
		return nil, ErrSchema1("the image")
	}
	if !IsManifest(mt) {
		return nil, errclass.Invalid("not a manifest: %s", mt)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, errclass.Invalid("invalid manifest: %v", err)
	}
	if err := checkDescriptor(&m.Config, MaxConfig); err != nil {
		return nil, err
	}
	if len(m.Layers) > MaxLayers {
		return nil, errclass.Invalid("image has %d layers, more than %d", len(m.Layers), MaxLayers)
	}
	for i := range m.Layers {
		if err := checkDescriptor(&m.Layers[i], 1<<50); err != nil {
			return nil, err
		}
	}
	m.MediaType = mt
	return &m, nil
}

func checkDescriptor(d *ocispec.Descriptor, limit int64) error {
	if err := CheckDigest(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 || d.Size > limit {
		return errclass.Invalid("%s has an impossible size: %d", d.Digest, d.Size)
	}
	// What a manifest says to fetch elsewhere is not fetched there.
	d.URLs, d.Data = nil, nil
	return nil
}

// CheckDigest refuses what is no digest of an algorithm in use.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return errclass.Invalid("invalid digest %q: %v", string(d), err)
	}
	return nil
}

// ParseConfig decodes an image configuration.
func ParseConfig(data []byte) (*dockerspec.DockerOCIImage, error) {
	if len(data) > MaxConfig {
		return nil, errclass.Invalid("image configuration of %d bytes is larger than %d", len(data), MaxConfig)
	}
	var c dockerspec.DockerOCIImage
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, errclass.Invalid("invalid image configuration: %v", err)
	}
	if len(c.RootFS.DiffIDs) > MaxLayers {
		return nil, errclass.Invalid("image has %d layers, more than %d", len(c.RootFS.DiffIDs), MaxLayers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := CheckDigest(d); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

// ChainIDs returns the chain ID of each layer, the lowest first. Configuration and
// manifest must tell of equally many.
func ChainIDs(m *ocispec.Manifest, c *dockerspec.DockerOCIImage) ([]digest.Digest, error) {
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, errclass.Invalid("invalid image: %d layers, but the configuration has %d", len(m.Layers), len(c.RootFS.DiffIDs))
	}
	return identity.ChainIDs(append([]digest.Digest(nil), c.RootFS.DiffIDs...)), nil
}

// IsAttestation reports whether an index entry describes another one.
func IsAttestation(d ocispec.Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest"
}

// Select returns the index entries that fit the platform, the best first.
func Select(ix *ocispec.Index, match platforms.MatchComparer) []ocispec.Descriptor {
	var fit []ocispec.Descriptor
	for _, d := range ix.Manifests {
		if IsAttestation(d) || !IsManifest(d.MediaType) && !IsIndex(d.MediaType) {
			continue
		}
		if d.Platform == nil || match.Match(*d.Platform) {
			fit = append(fit, d)
		}
	}
	// A stable insertion keeps the index's order among equals; entries without a
	// platform come last.
	for i := 1; i < len(fit); i++ {
		for j := i; j > 0 && better(match, fit[j], fit[j-1]); j-- {
			fit[j], fit[j-1] = fit[j-1], fit[j]
		}
	}
	return fit
}

func better(match platforms.MatchComparer, a, b ocispec.Descriptor) bool {
	switch {
	case a.Platform == nil:
		return false
	case b.Platform == nil:
		return true
	}
	return match.Less(*a.Platform, *b.Platform)
}

// Compression names how a layer of the media type is packed: "gzip", "zstd", "" for a
// plain tar. Layers that may not be distributed, and what is no layer, are refused
// with class NotImplemented.
func Compression(mt string) (string, error) {
	if strings.Contains(mt, "nondistributable") || strings.Contains(mt, ".foreign.") {
		return "", errclass.NotImplemented("layers of media type %q are not fetched", mt)
	}
	switch mt {
	case images.MediaTypeDockerSchema2LayerGzip, ocispec.MediaTypeImageLayerGzip:
		return "gzip", nil
	case ocispec.MediaTypeImageLayerZstd, images.MediaTypeDockerSchema2LayerZstd:
		return "zstd", nil
	case images.MediaTypeDockerSchema2Layer, ocispec.MediaTypeImageLayer:
		return "", nil
	}
	return "", errclass.NotImplemented("unsupported layer media type %q", mt)
}
