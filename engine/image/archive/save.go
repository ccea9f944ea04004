package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Save writes images as one tar archive that is an OCI layout and has manifest.json and
// repositories for older readers. A repository without tag stands for all its tags.
// platforms limits which of an image's platforms are written; without, all that are here.
// The images stay while they are written.
func (s *Service) Save(ctx context.Context, refs []string, plats []ocispec.Platform, w io.Writer) error {
	var list []saved
	for _, r := range refs {
		l, err := s.savedOf(r)
		if err != nil {
			return err
		}
		list = append(list, l...)
	}
	if len(list) == 0 {
		return errclass.Invalid("no images to save")
	}
	ctx, done, err := s.store.Work(ctx)
	if err != nil {
		return err
	}
	defer done(nil, false)
	x := &exporter{content: s.store.Content, docs: s.docs, platform: s.platform, match: matcher(plats), blobs: map[digest.Digest]ocispec.Descriptor{}, repos: map[string]map[string]string{}}
	for _, i := range list {
		if err := s.store.HoldBlob(ctx, i.target.Digest); err != nil {
			return err
		}
		if err := x.add(ctx, i); err != nil {
			return fmt.Errorf("saving %s: %w", i.ref, err)
		}
	}
	if err := x.write(ctx, w); err != nil {
		return fmt.Errorf("saving images: %w", err)
	}
	for _, i := range list {
		s.names.Emit(events.ActionSave, i.target.Digest.String(), i.ref)
	}
	return nil
}

// saved is an image to write, by a name or, when that is nil, by its ID.
type saved struct {
	target ocispec.Descriptor
	name   reference.NamedTagged
	ref    string
}

func (s *Service) savedOf(ref string) ([]saved, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err == nil && reference.IsNameOnly(named) {
		var all []saved
		for _, t := range s.names.Tags(named.Name()) {
			all = append(all, saved{t.Target, t.Name, reference.FamiliarString(t.Name)})
		}
		if len(all) > 0 {
			slices.SortFunc(all, func(a, b saved) int { return strings.Compare(a.ref, b.ref) })
			return all, nil
		}
	}
	f, err := s.names.Find(ref)
	if err != nil {
		return nil, err
	}
	one := saved{target: f.Target, ref: f.Target.Digest.String()}
	if r, err := reference.ParseNormalizedNamed(f.Name); f.Name != "" && err == nil {
		if t, ok := r.(reference.NamedTagged); ok {
			one.name, one.ref = t, reference.FamiliarString(t)
		}
	}
	return []saved{one}, nil
}

func matcher(plats []ocispec.Platform) func(ocispec.Platform) bool {
	if len(plats) == 0 {
		return func(ocispec.Platform) bool { return true }
	}
	var norm []ocispec.Platform
	for _, p := range plats {
		norm = append(norm, platforms.Normalize(p))
	}
	m := platforms.Any(norm...)
	return m.Match
}

// dockerEntry is one image in manifest.json.
type dockerEntry struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// exporter is one archive that is being written.
type exporter struct {
	content  content.Store
	docs     *document.Store
	platform ocispec.Platform
	match    func(ocispec.Platform) bool
	index    ocispec.Index
	old      []dockerEntry
	repos    map[string]map[string]string
	blobs    map[digest.Digest]ocispec.Descriptor
}

// add collects what an image consists of.
func (x *exporter) add(ctx context.Context, i saved) error {
	mans, err := x.docs.Platforms(ctx, i.target)
	if err != nil {
		return err
	}
	var best *document.Platform
	host := platforms.Only(x.platform)
	for n := range mans {
		m := &mans[n]
		if m.Manifest == nil || m.Config != nil && !x.match(m.Platform) {
			continue
		}
		for _, d := range append([]ocispec.Descriptor{m.Desc, m.Manifest.Config}, m.Manifest.Layers...) {
			if _, err := x.content.Info(ctx, d.Digest); err != nil {
				if errdefs.IsNotFound(err) {
					return errclass.NotFound("content of the image is missing: %s", d.Digest)
				}
				return err
			}
			x.blobs[d.Digest] = d
		}
		if m.Config != nil && (best == nil || !host.Match(best.Platform) && host.Match(m.Platform)) {
			best = m
		}
	}
	if best == nil {
		return errclass.NotFound("no suitable export target found for the platforms asked for")
	}
	if err := x.indexes(ctx, i.target, 0); err != nil {
		return err
	}
	d := ocispec.Descriptor{MediaType: i.target.MediaType, Digest: i.target.Digest, Size: i.target.Size}
	if i.name != nil {
		d.Annotations = map[string]string{annotationName: i.name.String(), ocispec.AnnotationRefName: i.name.Tag()}
	}
	x.index.Manifests = append(x.index.Manifests, d)
	x.older(best, i)
	return nil
}

// indexes adds the index documents themselves.
func (x *exporter) indexes(ctx context.Context, d ocispec.Descriptor, depth int) error {
	if !manifest.IsIndex(d.MediaType) || depth > manifest.MaxDepth {
		return nil
	}
	data, err := x.docs.Read(ctx, d, manifest.MaxSize)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	x.blobs[d.Digest] = d
	ix, err := manifest.ParseIndex(data, d.MediaType)
	if err != nil {
		return err
	}
	for _, c := range ix.Manifests {
		if err := x.indexes(ctx, c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// older adds the entry of manifest.json, one for all names of an image.
func (x *exporter) older(m *document.Platform, i saved) {
	config := blobPath(m.Manifest.Config.Digest)
	n := slices.IndexFunc(x.old, func(e dockerEntry) bool { return e.Config == config })
	if n < 0 {
		e := dockerEntry{Config: config, Layers: []string{}}
		for _, l := range m.Manifest.Layers {
			e.Layers = append(e.Layers, blobPath(l.Digest))
		}
		x.old = append(x.old, e)
		n = len(x.old) - 1
	}
	if i.name == nil {
		return
	}
	if !slices.Contains(x.old[n].RepoTags, i.ref) {
		x.old[n].RepoTags = append(x.old[n].RepoTags, i.ref)
	}
	repo := reference.FamiliarName(i.name)
	if x.repos[repo] == nil {
		x.repos[repo] = map[string]string{}
	}
	if k := len(m.Manifest.Layers); k > 0 {
		x.repos[repo][i.name.Tag()] = m.Manifest.Layers[k-1].Digest.Encoded()
	}
}

func blobPath(d digest.Digest) string { return "blobs/" + d.Algorithm().String() + "/" + d.Encoded() }

// write writes the archive, the same for the same images at any time.
func (x *exporter) write(ctx context.Context, w io.Writer) error {
	t := tar.NewWriter(w)
	var order []ocispec.Descriptor
	dirs := []string{"blobs/"}
	for _, d := range x.blobs {
		order = append(order, d)
		if dir := "blobs/" + d.Digest.Algorithm().String() + "/"; !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.SortFunc(order, func(a, b ocispec.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	slices.Sort(dirs)
	for _, d := range dirs {
		if err := t.WriteHeader(&tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch()}); err != nil {
			return err
		}
	}
	for _, d := range order {
		if err := x.blob(ctx, t, d); err != nil {
			return err
		}
	}
	x.index.Versioned, x.index.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageIndex
	for _, f := range []struct {
		name string
		v    any
	}{
		{"index.json", x.index},
		{"manifest.json", x.old},
		{"oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}},
		{"repositories", x.repos},
	} {
		if f.name == "repositories" && len(x.repos) == 0 {
			continue
		}
		data, err := json.Marshal(f.v)
		if err != nil {
			return err
		}
		if err := writeFile(t, f.name, int64(len(data)), bytes.NewReader(data)); err != nil {
			return err
		}
	}
	return t.Close()
}

func (x *exporter) blob(ctx context.Context, t *tar.Writer, d ocispec.Descriptor) error {
	ra, err := x.content.ReaderAt(ctx, d)
	if err != nil {
		return err
	}
	defer ra.Close()
	return writeFile(t, blobPath(d.Digest), ra.Size(), content.NewReader(ra))
}

func writeFile(t *tar.Writer, name string, size int64, r io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o444, Size: size, ModTime: epoch()}); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{t}, r, make([]byte, chunkSize))
	if err == nil && n != size {
		err = errors.New("blob is cut off")
	}
	return err
}

func epoch() time.Time { return time.Unix(0, 0).UTC() }
