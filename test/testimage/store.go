// Package testimage builds container images for tests without any container
// engine: from tar layers made in memory, from Debian packages, or from a
// directory. It writes them as an OCI image layout, an archive for `docker load`,
// or straight into a registry over the distribution API. It can also make the
// images no honest builder makes: wrong digests, hostile layers, foreign platforms.
//
// Sources: OCI image-spec v1.1 (manifest, index, config, layout), Docker image
// manifest v2 schema 2, distribution API v2.
package testimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sort"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Media types of Docker's schema 2, for images that a `docker push` would have made.
const (
	MediaDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaDockerConfig   = "application/vnd.docker.container.image.v1+json"
	MediaDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Store is an OCI image layout on disk: blobs by digest. Not safe for use by
// several processes at once.
type Store struct{ Dir string }

// NewStore makes the directories of an empty layout in dir.
func NewStore(dir string) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return nil, err
	}
	return &Store{Dir: dir}, nil
}

// Path is the file that holds (or would hold) a blob.
func (s *Store) Path(d digest.Digest) string {
	return filepath.Join(s.Dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// Put stores a blob and returns its descriptor.
func (s *Store) Put(mediaType string, r io.Reader) (ocispec.Descriptor, error) {
	f, err := os.CreateTemp(s.Dir, ".blob-")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil)))
	if err := os.Rename(f.Name(), s.Path(d)); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: n}, nil
}

// PutJSON stores v as a JSON blob.
func (s *Store) PutJSON(mediaType string, v any) (ocispec.Descriptor, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.Put(mediaType, bytes.NewReader(b))
}

// Get reads a whole blob.
func (s *Store) Get(d digest.Digest) ([]byte, error) { return os.ReadFile(s.Path(d)) }

// Children are the descriptors a manifest or index refers to; nil for other blobs.
func (s *Store) Children(d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	switch d.MediaType {
	case ocispec.MediaTypeImageIndex, MediaDockerList:
		var idx ocispec.Index
		if err := s.getJSON(d.Digest, &idx); err != nil {
			return nil, err
		}
		return idx.Manifests, nil
	case ocispec.MediaTypeImageManifest, MediaDockerManifest:
		var m ocispec.Manifest
		if err := s.getJSON(d.Digest, &m); err != nil {
			return nil, err
		}
		return append([]ocispec.Descriptor{m.Config}, m.Layers...), nil
	}
	return nil, nil
}

func (s *Store) getJSON(d digest.Digest, v any) error {
	b, err := s.Get(d)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// closure lists d and everything below it, children first, each digest once.
func (s *Store) closure(d ocispec.Descriptor, seen map[digest.Digest]bool) ([]ocispec.Descriptor, error) {
	if seen[d.Digest] {
		return nil, nil
	}
	seen[d.Digest] = true
	kids, err := s.Children(d)
	if err != nil {
		return nil, err
	}
	var all []ocispec.Descriptor
	for _, k := range kids {
		sub, err := s.closure(k, seen)
		if err != nil {
			return nil, err
		}
		all = append(all, sub...)
	}
	return append(all, d), nil
}

// WriteOCIArchive writes images (name → root descriptor) as a tar of an OCI layout,
// the form `docker save` writes today and `docker load` reads.
func (s *Store) WriteOCIArchive(w io.Writer, images map[string]ocispec.Descriptor) error {
	tw := tar.NewWriter(w)
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	idx.SchemaVersion = 2
	seen := map[digest.Digest]bool{}
	for _, name := range sortedKeys(images) {
		root := images[name]
		blobs, err := s.closure(root, seen)
		if err != nil {
			return err
		}
		for _, b := range blobs {
			if err := s.addBlob(tw, filepath.Join("blobs", "sha256", b.Digest.Encoded()), b.Digest); err != nil {
				return err
			}
		}
		root.Annotations = map[string]string{
			"io.containerd.image.name":      name,
			ocispec.AnnotationRefName:       tagOf(name),
			"org.gantry.test.image.purpose": "test",
		}
		idx.Manifests = append(idx.Manifests, root)
	}
	if err := addJSON(tw, "index.json", idx); err != nil {
		return err
	}
	if err := addJSON(tw, ocispec.ImageLayoutFile, ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return tw.Close()
}

// WriteDockerArchive writes single-platform images in the older form of
// `docker save`: manifest.json, config by digest, layers as plain tars.
func (s *Store) WriteDockerArchive(w io.Writer, images map[string]ocispec.Descriptor) error {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	var entries []entry
	tw := tar.NewWriter(w)
	for _, name := range sortedKeys(images) {
		kids, err := s.Children(images[name])
		if err != nil {
			return err
		}
		if len(kids) == 0 {
			return errors.New("testimage: only a manifest can go into a docker archive")
		}
		e := entry{Config: kids[0].Digest.Encoded() + ".json", RepoTags: []string{name}}
		if err := s.addBlob(tw, e.Config, kids[0].Digest); err != nil {
			return err
		}
		for _, l := range kids[1:] {
			file := l.Digest.Encoded() + "/layer.tar"
			if err := s.addPlainLayer(tw, file, l.Digest); err != nil {
				return err
			}
			e.Layers = append(e.Layers, file)
		}
		entries = append(entries, e)
	}
	if err := addJSON(tw, "manifest.json", entries); err != nil {
		return err
	}
	return tw.Close()
}

func (s *Store) addBlob(tw *tar.Writer, name string, d digest.Digest) error {
	f, err := os.Open(s.Path(d))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: st.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}

func (s *Store) addPlainLayer(tw *tar.Writer, name string, d digest.Digest) error {
	plain, err := s.Uncompressed(d)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(plain))}); err != nil {
		return err
	}
	_, err = tw.Write(plain)
	return err
}

func addJSON(tw *tar.Writer, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(b))}); err != nil {
		return err
	}
	_, err = tw.Write(b)
	return err
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// tagOf is the tag of a reference, "latest" without one.
func tagOf(ref string) string {
	for i := len(ref) - 1; i >= 0 && ref[i] != '/'; i-- {
		if ref[i] == ':' {
			return ref[i+1:]
		}
	}
	return "latest"
}
