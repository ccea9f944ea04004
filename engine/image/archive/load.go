package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/layers"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/unpack"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	maxArchiveEntries = 100_000
	// chunkSize is how much of a blob is copied at a time.
	chunkSize = 256 << 10
	// annotationName is the full name of an image in an archive's index.
	annotationName = "io.containerd.image.name"
)

// Load reads an archive, packed or not, as Save or another tool writes it (an OCI
// layout, or Docker's older format with manifest.json) and stores its images. Nothing
// is kept of an archive that is refused. Progress gets "Loaded image: …" lines; quiet
// leaves the layers' out.
func (s *Service) Load(ctx context.Context, r io.Reader, quiet bool, p progress.Sink) (err error) {
	ctx, done, err := s.store.Work(ctx)
	if err != nil {
		return err
	}
	defer func() { done(err, false) }()
	plain, err := unpack.Decompress(r)
	if err != nil {
		return fmt.Errorf("loading images: %w", err)
	}
	defer plain.Close()
	a := &reader{content: s.store.Content, docs: s.docs, layers: s.layers, files: map[string]*archived{}}
	if err := a.read(ctx, plain); err != nil {
		return fmt.Errorf("loading images: %w", err)
	}
	loaded, err := a.images(ctx)
	if err != nil {
		return fmt.Errorf("loading images: %w", err)
	}
	if len(loaded) == 0 {
		return errclass.Invalid("loading images: the archive holds no image")
	}
	lp := p
	if quiet {
		lp = progress.Discard{}
	}
	for _, l := range loaded {
		if err := s.unpack(ctx, l.target, loadProgress{lp}); err != nil {
			return fmt.Errorf("loading images: %w", err)
		}
	}
	for _, l := range loaded {
		if err := s.name(ctx, l, p); err != nil {
			return err
		}
	}
	return nil
}

// loadProgress words the unpacking of layers as loading does.
type loadProgress struct{ p progress.Sink }

// Update implements progress.Sink.
func (l loadProgress) Update(id, status string, current, total int64) {
	if status == "Extracting" {
		l.p.Update(id, "Loading layer", current, total)
	}
}

// Aux implements progress.Sink.
func (l loadProgress) Aux(v any) { l.p.Aux(v) }

// loadedImage is one image of an archive; without a name it gets none.
type loadedImage struct {
	target ocispec.Descriptor
	name   reference.Named
}

func (s *Service) name(ctx context.Context, l loadedImage, p progress.Sink) error {
	target := l.target.Digest.String()
	if l.name == nil {
		if len(s.names.Of(l.target.Digest)) == 0 {
			if _, err := s.names.Set(ctx, names.Dangling(l.target.Digest), l.target); err != nil {
				return err
			}
		}
		p.Update("", "Loaded image ID: "+target, 0, 0)
		s.names.Emit(events.ActionLoad, target, target)
		return nil
	}
	name := reference.FamiliarString(l.name)
	old, err := s.names.Set(ctx, l.name.String(), l.target)
	if err != nil {
		return err
	}
	if old != nil && old.Digest != l.target.Digest {
		p.Update("", fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string", name, old.Digest), 0, 0)
	}
	p.Update("", "Loaded image: "+name, 0, 0)
	s.names.Emit(events.ActionLoad, target, name)
	return nil
}

// unpack unpacks the platform of an image that this daemon would run. An image of other
// platforms only is stored as it is.
func (s *Service) unpack(ctx context.Context, target ocispec.Descriptor, p progress.Sink) error {
	all, err := s.docs.Platforms(ctx, target)
	if err != nil {
		return fmt.Errorf("reading image %s: %w", target.Digest, err)
	}
	best := document.Pick(all, s.platform, false)
	if best == nil {
		return names.ErrNoSuchImage(target.Digest.String())
	}
	if !platforms.Only(s.platform).Match(platforms.Normalize(best.Config.Platform)) && best.Config.OS != "" {
		return nil
	}
	return s.layers.Unpack(ctx, best.Desc, best.Config, p)
}

// archived is a file of an archive, which is in the content store.
type archived struct {
	desc ocispec.Descriptor
	data []byte // of the lists only
	link string // of a symbolic or hard link: the path it leads to
}

// reader is one archive that is being read.
type reader struct {
	content content.Store
	docs    *document.Store
	layers  *layers.Unpacker
	files   map[string]*archived // by clean path
}

// read stores every file of the archive as a blob. Which of them are an image's shows
// at the end; the others are collected.
func (a *reader) read(ctx context.Context, r io.Reader) error {
	t := tar.NewReader(r)
	for n := 0; ; n++ {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errclass.Invalid("invalid tar archive: %v", err)
		}
		if err != nil {
			return err
		}
		if n >= maxArchiveEntries {
			return errclass.Invalid("archive has more than %d entries", maxArchiveEntries)
		}
		name := path.Clean(strings.TrimPrefix(hdr.Name, "/"))
		switch hdr.Typeflag {
		case tar.TypeReg:
			if a.files[name], err = a.store(ctx, name, hdr.Size, t); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		case tar.TypeSymlink:
			a.files[name] = &archived{link: path.Join(path.Dir(name), hdr.Linkname)}
		case tar.TypeLink:
			a.files[name] = &archived{link: path.Clean(hdr.Linkname)}
		}
	}
}

// store puts one file into the content store. A file below blobs/ must have the digest
// it is called by.
func (a *reader) store(ctx context.Context, name string, size int64, r io.Reader) (*archived, error) {
	var f archived
	if name == "index.json" || name == "manifest.json" {
		data, err := readList(r, size)
		if err != nil {
			return nil, err
		}
		f.data, r = data, bytes.NewReader(data)
	}
	var want digest.Digest
	if parts := strings.Split(name, "/"); len(parts) == 3 && parts[0] == "blobs" {
		want = digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[2])
		if err := manifest.CheckDigest(want); err != nil {
			return nil, err
		}
		unlock, err := a.layers.LockBlob(ctx, want)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	got, err := a.blob(ctx, want, size, r)
	if err != nil {
		return nil, err
	}
	f.desc = ocispec.Descriptor{Digest: got, Size: size}
	return &f, nil
}

// readList reads one of the lists of an archive whole.
func readList(r io.Reader, size int64) ([]byte, error) {
	if size > manifest.MaxConfig {
		return nil, errclass.Invalid("larger than %d bytes", manifest.MaxConfig)
	}
	data, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != size {
		return nil, errclass.Invalid("cut off")
	}
	return data, nil
}

// blob stores what r has, size bytes, and returns its digest: want, when that is known.
func (a *reader) blob(ctx context.Context, want digest.Digest, size int64, r io.Reader) (digest.Digest, error) {
	ref := "load-" + id.New()
	if want != "" {
		ref = "layer-" + want.String()
	}
	w, err := a.content.Writer(ctx, content.WithRef(ref), content.WithDescriptor(ocispec.Descriptor{Digest: want, Size: size}))
	if errdefs.IsAlreadyExists(err) {
		_, err = io.Copy(io.Discard, r)
		return want, err
	}
	if err != nil {
		return "", err
	}
	defer w.Close()
	if st, err := w.Status(); err == nil && st.Offset > 0 {
		if err := w.Truncate(0); err != nil { // what a pull has left
			return "", err
		}
	}
	if n, err := io.CopyBuffer(struct{ io.Writer }{w}, r, make([]byte, chunkSize)); err != nil || n != size {
		_ = a.content.Abort(context.WithoutCancel(ctx), ref)
		if err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errclass.Invalid("cut off after %d of %d bytes", n, size)
		}
		return "", err
	}
	got := w.Digest()
	if want != "" && got != want && want.Algorithm() == digest.SHA256 {
		w.Close()
		_ = a.content.Abort(context.WithoutCancel(ctx), ref)
		return "", document.Mismatch("blob", got, want)
	}
	if err := w.Commit(ctx, size, want); err != nil && !errdefs.IsAlreadyExists(err) {
		return "", err
	}
	if want == "" {
		want = got
	}
	return want, nil
}

// file finds a file of the archive, through links in it.
func (a *reader) file(name string) (*archived, error) {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	for range 10 {
		f := a.files[name]
		if f == nil {
			return nil, errclass.Invalid("%s is missing from the archive", name)
		}
		if f.link == "" {
			return f, nil
		}
		name = f.link
	}
	return nil, errclass.Invalid("%s: too many links", name)
}

// images returns what the archive's own list names.
func (a *reader) images(ctx context.Context) ([]loadedImage, error) {
	if f := a.files["index.json"]; f != nil {
		return a.layout(ctx, f)
	}
	f := a.files["manifest.json"]
	if f == nil {
		return nil, errclass.Invalid("invalid archive: it has neither index.json nor manifest.json")
	}
	return a.docker(ctx, f)
}

// layout reads an OCI layout.
func (a *reader) layout(ctx context.Context, f *archived) ([]loadedImage, error) {
	ix, err := manifest.ParseIndex(f.data, "")
	if err != nil {
		return nil, err
	}
	var all []loadedImage
	for _, d := range ix.Manifests {
		name, err := archiveName(d.Annotations)
		if err != nil {
			return nil, err
		}
		d.Platform, d.Annotations = nil, nil
		if d.MediaType, err = a.label(ctx, d, 0); err != nil {
			return nil, err
		}
		all = append(all, loadedImage{d, name})
	}
	return all, nil
}

// archiveName reads the name an index entry has for people; nil without one.
func archiveName(annotations map[string]string) (reference.Named, error) {
	n := annotations[annotationName]
	if n == "" {
		n = annotations[ocispec.AnnotationRefName]
		if !strings.ContainsAny(n, ":/") {
			return nil, nil // a tag alone does not say of what
		}
	}
	ref, err := reference.ParseNormalizedNamed(n)
	if err != nil {
		return nil, errclass.Invalid("invalid image name %q in archive", n)
	}
	return reference.TagNameOnly(ref), nil
}

// label checks a document of a layout and everything it refers to, and stores what it
// refers to for the garbage collector. It returns its media type. A platform that is
// not in the archive at all is left out, as long as it isn't the only one.
func (a *reader) label(ctx context.Context, d ocispec.Descriptor, depth int) (string, error) {
	data, err := a.docs.Read(ctx, d, manifest.MaxSize)
	if errdefs.IsNotFound(err) {
		return "", errclass.Invalid("blob %s is missing from the archive", d.Digest)
	}
	if err != nil {
		return "", err
	}
	mt, err := manifest.Sniff(data, d.MediaType)
	if err != nil {
		return "", err
	}
	d.MediaType = mt
	if manifest.IsSchema1(mt) {
		return "", manifest.ErrSchema1("the image")
	}
	if manifest.IsManifest(mt) {
		m, err := manifest.ParseManifest(data, mt)
		if err != nil {
			return "", err
		}
		for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if _, err := a.content.Info(ctx, b.Digest); err != nil {
				return "", errclass.Invalid("blob %s is missing from the archive", b.Digest)
			}
		}
		return mt, a.docs.Save(ctx, d, data, document.ManifestLabels(m))
	}
	if depth >= manifest.MaxDepth {
		return "", errclass.Invalid("image index is nested too deeply")
	}
	ix, err := manifest.ParseIndex(data, mt)
	if err != nil {
		return "", err
	}
	found := 0
	for _, c := range ix.Manifests {
		if _, err := a.content.Info(ctx, c.Digest); err != nil {
			continue
		}
		if _, err := a.label(ctx, c, depth+1); err != nil {
			return "", err
		}
		found++
	}
	if found == 0 && len(ix.Manifests) > 0 {
		return "", errclass.Invalid("all platforms of %s are missing from the archive", d.Digest)
	}
	return mt, a.docs.Save(ctx, d, data, document.IndexLabels(ix))
}

// docker reads the older format: manifests are made here.
func (a *reader) docker(ctx context.Context, f *archived) ([]loadedImage, error) {
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(f.data, &list); err != nil {
		return nil, errclass.Invalid("invalid manifest.json: %v", err)
	}
	var all []loadedImage
	for _, e := range list {
		target, err := a.dockerImage(ctx, e.Config, e.Layers)
		if err != nil {
			return nil, err
		}
		if len(e.RepoTags) == 0 {
			all = append(all, loadedImage{target: target})
		}
		for _, t := range e.RepoTags {
			ref, err := reference.ParseNormalizedNamed(t)
			if err != nil {
				return nil, errclass.Invalid("invalid image name %q in archive", t)
			}
			all = append(all, loadedImage{target, reference.TagNameOnly(ref)})
		}
	}
	return all, nil
}

func (a *reader) dockerImage(ctx context.Context, config string, layers []string) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	cf, err := a.file(config)
	if err != nil {
		return none, err
	}
	conf, err := a.docs.Read(ctx, cf.desc, manifest.MaxConfig)
	if err != nil {
		return none, err
	}
	c, err := manifest.ParseConfig(conf)
	if err != nil {
		return none, err
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: cf.desc.Digest, Size: cf.desc.Size},
	}
	for _, l := range layers {
		lf, err := a.file(l)
		if err != nil {
			return none, err
		}
		d := lf.desc
		if d.MediaType, err = a.layerType(ctx, d); err != nil {
			return none, err
		}
		m.Layers = append(m.Layers, d)
	}
	if _, err := manifest.ChainIDs(&m, c); err != nil {
		return none, err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return none, err
	}
	d := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return d, a.docs.Save(ctx, d, data, document.ManifestLabels(&m))
}

// layerType looks how a blob is packed.
func (a *reader) layerType(ctx context.Context, d ocispec.Descriptor) (string, error) {
	ra, err := a.content.ReaderAt(ctx, d)
	if err != nil {
		return "", err
	}
	defer ra.Close()
	magic := make([]byte, 4)
	n, err := ra.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	switch {
	case n >= 2 && magic[0] == 0x1f && magic[1] == 0x8b:
		return ocispec.MediaTypeImageLayerGzip, nil
	case n == 4 && slices.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return ocispec.MediaTypeImageLayerZstd, nil
	}
	return ocispec.MediaTypeImageLayer, nil
}
