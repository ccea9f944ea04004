package testimage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// epoch is the time of every file made here, so that equal content has equal digests.
func epoch() time.Time { return time.Unix(1_700_000_000, 0) }

// Layer is one stored layer: its descriptor and the digest of the plain tar.
type Layer struct {
	Desc   ocispec.Descriptor
	DiffID digest.Digest
}

// Entry is one file of a layer. Mode carries permission bits only; the type comes
// from Type (a tar.Type… constant, 0: regular file, or directory when Name ends in /).
type Entry struct {
	Name, Link   string
	Type         byte
	Mode         int64
	UID, GID     int
	Body         []byte
	Major, Minor int64
	// Raw keeps Name as it is (absolute, with dots): for hostile layers.
	Raw bool
}

// Tar encodes entries as a tar.
func Tar(entries []Entry) ([]byte, error) {
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{
			Typeflag: e.Type, Name: e.Name, Linkname: e.Link, Mode: e.Mode, Uid: e.UID, Gid: e.GID,
			Size: int64(len(e.Body)), ModTime: epoch(), Devmajor: e.Major, Devminor: e.Minor, Format: tar.FormatPAX,
		}
		if !e.Raw {
			h.Name = strings.TrimPrefix(h.Name, "/")
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
			if strings.HasSuffix(e.Name, "/") {
				h.Typeflag = tar.TypeDir
			}
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := tw.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("testimage: %s: %w", e.Name, err)
		}
		if _, err := tw.Write(e.Body); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// PutLayer compresses a plain tar with gzip and stores it.
func (s *Store) PutLayer(plain io.Reader) (Layer, error) {
	dg := digest.SHA256.Digester()
	pr, pw := io.Pipe()
	go func() {
		zw, err := gzip.NewWriterLevel(pw, gzip.BestSpeed)
		if err == nil {
			_, err = io.Copy(io.MultiWriter(zw, dg.Hash()), plain)
		}
		if err == nil {
			err = zw.Close()
		}
		pw.CloseWithError(err)
	}()
	d, err := s.Put(ocispec.MediaTypeImageLayerGzip, pr)
	pr.Close()
	if err != nil {
		return Layer{}, err
	}
	return Layer{Desc: d, DiffID: dg.Digest()}, nil
}

// PutEntries stores a layer of the given entries.
func (s *Store) PutEntries(entries []Entry) (Layer, error) {
	plain, err := Tar(entries)
	if err != nil {
		return Layer{}, err
	}
	return s.PutLayer(bytes.NewReader(plain))
}

// Uncompressed returns the plain tar of a stored gzip layer (at most 1 GiB).
func (s *Store) Uncompressed(d digest.Digest) ([]byte, error) {
	f, err := os.Open(s.Path(d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(zr, 1<<30))
}

// Image says what PutImage is to make.
type Image struct {
	Platform ocispec.Platform // zero: linux on this machine's architecture
	Config   ocispec.ImageConfig
	Layers   []Layer
	// Docker uses the media types of Docker's schema 2.
	Docker bool
	// DiffIDs replaces the layers' own (for images that lie).
	DiffIDs []digest.Digest
}

// PutImage stores config and manifest and returns the manifest's descriptor with
// its platform set.
func (s *Store) PutImage(img Image) (ocispec.Descriptor, error) {
	p := img.Platform
	if p.Architecture == "" {
		p = HostPlatform()
	}
	created := epoch().UTC()
	cfg := ocispec.Image{Created: &created, Platform: p, Config: img.Config}
	cfg.RootFS.Type = "layers"
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	cfgType := ocispec.MediaTypeImageConfig
	if img.Docker {
		m.MediaType, cfgType = MediaDockerManifest, MediaDockerConfig
	}
	for _, l := range img.Layers {
		if img.Docker {
			l.Desc.MediaType = MediaDockerLayer
		}
		m.Layers = append(m.Layers, l.Desc)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.DiffID)
		cfg.History = append(cfg.History, ocispec.History{Created: &created, CreatedBy: "testimage"})
	}
	if img.DiffIDs != nil {
		cfg.RootFS.DiffIDs = img.DiffIDs
	}
	var err error
	if m.Config, err = s.PutJSON(cfgType, cfg); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.PutJSON(m.MediaType, m)
	d.Platform = &p
	return d, err
}

// PutIndex stores an index (or Docker manifest list) of manifests.
func (s *Store) PutIndex(docker bool, manifests ...ocispec.Descriptor) (ocispec.Descriptor, error) {
	idx := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
	if docker {
		idx.MediaType = MediaDockerList
	}
	idx.SchemaVersion = 2
	return s.PutJSON(idx.MediaType, idx)
}
