package image

import (
	"context"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// facts are what a list shows and filters of an image. They are never changed.
type facts struct {
	labels  map[string]string
	created time.Time // zero when the image does not say
	size    int64     // bytes of its blobs that are here and of its unpacked layers

	state uint64 // of the store, for which all this holds
	whole bool   // all documents were here: all but size and state holds for ever
	parts []part
}

// part is what one platform of an image takes on the disk.
type part struct {
	blobs  []digest.Digest
	chains []digest.Digest // of the unpacked layers
}

// describe is what facts take from the image's own words.
func describe(img *Image) *facts {
	f := &facts{labels: img.Config.Config.Labels}
	if c := img.Config.Created; c != nil {
		f.created = *c
	}
	return f
}

// factsOf returns the facts of the image at target. ctx is of a View of the store at
// state. Of an image that is whole only sizes are looked up again in another state.
func (s *Service) factsOf(ctx context.Context, state uint64, target ocispec.Descriptor) (*facts, error) {
	old, ok := s.facts.Get(target.Digest)
	if ok && old.state == state {
		return old, nil
	}
	var f *facts
	if ok && old.whole {
		same := *old
		f = &same
	} else {
		var err error
		if f, err = s.readFacts(ctx, target); err != nil {
			return nil, err
		}
	}
	var err error
	if f.size, err = partsSize(ctx, s.store, f.parts); err != nil {
		return nil, err
	}
	f.state = state
	s.facts.Add(target.Digest, f)
	return f, nil
}

// readFacts reads all but the size from an image's documents.
func (s *Service) readFacts(ctx context.Context, target ocispec.Descriptor) (*facts, error) {
	mans, err := s.docs.Platforms(ctx, target)
	if err != nil {
		return nil, err
	}
	img, err := s.pick(target.Digest.String(), target, mans, nil)
	if err != nil {
		return nil, err
	}
	f := describe(img)
	f.whole = true
	for i := range mans {
		m := &mans[i]
		f.whole = f.whole && m.Manifest != nil && (m.Config != nil || manifest.IsAttestation(m.Desc))
		f.parts = append(f.parts, partOf(m))
	}
	return f, nil
}

// partOf lists what a platform consists of, as far as its documents are here.
func partOf(m *document.Platform) (p part) {
	if m.Manifest == nil {
		return p
	}
	p.blobs = append(p.blobs, m.Desc.Digest, m.Manifest.Config.Digest)
	for _, l := range m.Manifest.Layers {
		p.blobs = append(p.blobs, l.Digest)
	}
	if m.Config != nil {
		// An image whose chain is not valid was never unpacked.
		p.chains, _ = manifest.ChainIDs(m.Manifest, m.Config)
	}
	return p
}

// size is what an image takes, in bytes: its blobs that are here and its unpacked
// layers, each once.
func (s *Service) size(ctx context.Context, target ocispec.Descriptor) (int64, error) {
	mans, err := s.docs.Platforms(ctx, target)
	if err != nil {
		return 0, err
	}
	var parts []part
	for i := range mans {
		parts = append(parts, partOf(&mans[i]))
	}
	return partsSize(ctx, s.store, parts)
}

func partsSize(ctx context.Context, st *storage.Store, parts []part) (total int64, err error) {
	seen := map[digest.Digest]bool{}
	for i := range parts {
		blobs, unpacked, err := partSize(ctx, st, &parts[i], seen)
		if err != nil {
			return 0, err
		}
		total += blobs + unpacked
	}
	return total, nil
}

// partSize returns the bytes of a platform's blobs and of its unpacked layers, without
// those seen already.
func partSize(ctx context.Context, st *storage.Store, p *part, seen map[digest.Digest]bool) (blobs, unpacked int64, err error) {
	sctx := storage.Context(ctx)
	sum := func(total *int64, list []digest.Digest, size func(digest.Digest) (int64, error)) error {
		for _, d := range list {
			if seen[d] {
				continue
			}
			seen[d] = true
			n, err := size(d)
			if err != nil && !errdefs.IsNotFound(err) {
				return err
			}
			*total += n
		}
		return nil
	}
	err = sum(&blobs, p.blobs, func(d digest.Digest) (int64, error) {
		info, err := st.Content.Info(sctx, d)
		return info.Size, err
	})
	if err != nil {
		return 0, 0, err
	}
	err = sum(&unpacked, p.chains, func(d digest.Digest) (int64, error) {
		u, err := st.Snapshots.Usage(sctx, d.String())
		return u.Size, err
	})
	return blobs, unpacked, err
}
