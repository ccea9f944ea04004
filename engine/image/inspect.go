package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	imagetypes "github.com/moby/moby/api/types/image"
	storagetypes "github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect describes an image, for the platform asked for or the best one here.
func (s *Service) Inspect(ctx context.Context, ref string, platform *ocispec.Platform, manifests bool) (imagetypes.InspectResponse, error) {
	var r imagetypes.InspectResponse
	if manifests && platform != nil {
		return r, errclass.Invalid("conflicting options: manifests and platform options cannot both be set")
	}
	img, err := s.Resolve(ctx, ref, platform)
	if err != nil {
		return r, err
	}
	g := s.names.Groups()[img.ID]
	if g == nil {
		return r, names.ErrNoSuchImage(ref)
	}
	d := img.Target
	conf := img.Config.Config
	r = imagetypes.InspectResponse{
		ID: img.ID.String(), RepoTags: g.Tags(), RepoDigests: g.RepoDigests(),
		Author: img.Config.Author, Config: &conf,
		Architecture: img.Config.Architecture, Variant: img.Config.Variant, Os: img.Config.OS, OsVersion: img.Config.OSVersion,
		RootFS:     imagetypes.RootFS{Type: img.Config.RootFS.Type},
		Metadata:   imagetypes.Metadata{LastTagTime: g.Tagged},
		Descriptor: &d,
	}
	if n := len(img.Config.History); n > 0 {
		r.Comment = img.Config.History[n-1].Comment
	}
	if img.Config.Created != nil {
		r.Created = img.Config.Created.Format(time.RFC3339Nano)
	}
	for _, l := range img.Config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, l.String())
	}
	if r.Size, err = s.size(ctx, img.Target); err != nil {
		return r, err
	}
	r.GraphDriver = &storagetypes.DriverData{Name: s.store.Driver().Name, Data: map[string]string{}}
	if manifests {
		r.Manifests, err = s.summaries(ctx, img.Target)
	}
	return r, err
}

// summaries describes every manifest of an image.
func (s *Service) summaries(ctx context.Context, target ocispec.Descriptor) ([]imagetypes.ManifestSummary, error) {
	mans, err := s.docs.Platforms(ctx, target)
	if err != nil {
		return nil, err
	}
	var out []imagetypes.ManifestSummary
	for i := range mans {
		m := &mans[i]
		sum := imagetypes.ManifestSummary{ID: m.Desc.Digest.String(), Descriptor: m.Desc, Kind: imagetypes.ManifestKindUnknown}
		p := partOf(m)
		blobs, unpacked, err := partSize(ctx, s.store, &p, map[digest.Digest]bool{})
		if err != nil {
			return nil, err
		}
		sum.Size.Content, sum.Size.Total = blobs, blobs+unpacked
		sum.Available = s.available(ctx, m)
		switch {
		case manifest.IsAttestation(m.Desc):
			sum.Kind = imagetypes.ManifestKindAttestation
			sum.AttestationData = &imagetypes.AttestationProperties{For: digest.Digest(m.Desc.Annotations["vnd.docker.reference.digest"])}
		case m.Config != nil || m.Desc.Platform != nil:
			sum.Kind = imagetypes.ManifestKindImage
			p := &imagetypes.ImageProperties{Platform: m.Platform, Containers: []string{}}
			p.Size.Unpacked = unpacked
			if platforms.Only(s.platform).Match(m.Platform) {
				p.Containers = append(p.Containers, s.store.Users(target.Digest)...)
			}
			sum.ImageData = p
		}
		out = append(out, sum)
	}
	return out, nil
}

// available reports whether all blobs of a platform are here.
func (s *Service) available(ctx context.Context, m *document.Platform) bool {
	if m.Manifest == nil {
		return false
	}
	for _, d := range append([]ocispec.Descriptor{m.Manifest.Config}, m.Manifest.Layers...) {
		if _, err := s.store.Content.Info(storage.Context(ctx), d.Digest); err != nil {
			return false
		}
	}
	return true
}

// History returns how an image was built, the last step first. Only the first entry has
// an ID, and names: the steps below are no images here.
func (s *Service) History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error) {
	img, err := s.Resolve(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	sizes, err := s.layerSizes(ctx, img)
	if err != nil {
		return nil, err
	}
	out := []imagetypes.HistoryResponseItem{}
	for _, h := range img.Config.History {
		item := imagetypes.HistoryResponseItem{ID: "<missing>", CreatedBy: h.CreatedBy, Comment: h.Comment, Tags: []string{}}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer {
			if len(sizes) == 0 {
				return nil, errclass.Invalid("invalid image: its history has more layers than it")
			}
			item.Size, sizes = sizes[0], sizes[1:]
		}
		out = append([]imagetypes.HistoryResponseItem{item}, out...)
	}
	if len(out) > 0 {
		out[0].ID = img.ID.String()
		if g := s.names.Groups()[img.ID]; g != nil {
			out[0].Tags = g.Tags()
		}
	}
	return out, nil
}

// Unpacked is what the layers of an image take, in bytes, as far as they are unpacked.
func (s *Service) Unpacked(ctx context.Context, img *Image) (int64, error) {
	sizes, err := s.layerSizes(ctx, img)
	var total int64
	for _, n := range sizes {
		total += n
	}
	return total, err
}

// layerSizes returns the unpacked size of each layer, the lowest first.
func (s *Service) layerSizes(ctx context.Context, img *Image) ([]int64, error) {
	m, err := s.docs.Manifest(ctx, img.Manifest)
	if err != nil {
		return nil, err
	}
	chains, err := manifest.ChainIDs(m, &img.Config)
	if err != nil {
		return nil, err
	}
	var sizes []int64
	for _, c := range chains {
		u, err := s.store.Snapshots.Usage(storage.Context(ctx), c.String())
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		sizes = append(sizes, u.Size)
	}
	return sizes, nil
}

// RawConfig returns the configuration of an image as it is stored.
func (s *Service) RawConfig(ctx context.Context, img *Image) (json.RawMessage, error) {
	return s.docs.Read(ctx, img.ConfigDesc, manifest.MaxConfig)
}

// parseTime reads what Docker takes for a point in time.
func parseTime(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	if sec, err := strconv.ParseFloat(v, 64); err == nil && sec >= 0 && sec < 1<<40 {
		return time.Unix(0, int64(sec*1e9)), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time", v)
}
