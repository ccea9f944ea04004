package testimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// debianMirror is where mmdebstrap fetches packages from.
const debianMirror = "http://deb.debian.org/debian"

// servicePackages make the layer of the services image.
func servicePackages() []string { return []string{"redis-server", "nginx-light", "procps"} }

// debian makes the Debian image, and over it a second layer with services, out of the
// layers that Prepare has left in cacheDir.
func (s *Store) debian(services bool, cacheDir string) (ocispec.Descriptor, error) {
	img := Image{Config: shellConfig()}
	img.Config.Cmd = []string{"bash"}
	keys := []string{baseKey}
	if services {
		keys = append(keys, servicesKey())
		img.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}, "6379/tcp": {}}
	}
	for _, key := range keys {
		l, err := s.cachedLayer(cacheDir, key)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		img.Layers = append(img.Layers, l)
	}
	return s.PutImage(img)
}

const baseKey = "debian-bookworm-minbase"

func servicesKey() string { return "services-" + strings.Join(servicePackages(), "-") }

// Cached returns an error that names the first layer of Prepare's that cacheDir lacks.
func Cached(s *Store, cacheDir string) error {
	_, err := s.debian(true, cacheDir)
	return err
}

// Prepare makes the layers that need Debian's archive, and leaves them in cacheDir. It
// needs root, the network, and mmdebstrap in PATH. Layers that are there stay.
func Prepare(s *Store, cacheDir string) error {
	base, err := s.cachedLayer(cacheDir, baseKey)
	if err != nil {
		plain, err := mmdebstrap(nil)
		if err != nil {
			return err
		}
		if base, err = s.keepLayer(cacheDir, baseKey, plain); err != nil {
			return err
		}
	}
	if _, err := s.cachedLayer(cacheDir, servicesKey()); err == nil {
		return nil
	}
	below, err := s.Uncompressed(base.Desc.Digest)
	if err != nil {
		return err
	}
	above, err := mmdebstrap(servicePackages())
	if err != nil {
		return err
	}
	diff, err := DiffTar(below, above)
	if err != nil {
		return err
	}
	_, err = s.keepLayer(cacheDir, servicesKey(), diff)
	return err
}

// mmdebstrap makes a Debian root with further packages, as a tar.
func mmdebstrap(packages []string) ([]byte, error) {
	args := []string{"--variant=minbase", "--format=tar", "--quiet"}
	if len(packages) > 0 {
		args = append(args, "--include="+strings.Join(packages, ","))
	}
	cmd := exec.Command("mmdebstrap", append(args, "bookworm", "-", debianMirror)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch().Unix()))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("testimage: mmdebstrap: %w: %s", err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// layerFile is the name of a kept layer's files, without their endings.
func layerFile(cacheDir, key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(cacheDir, "layer-"+hex.EncodeToString(sum[:8]))
}

// cachedLayer puts a layer out of cacheDir into s.
func (s *Store) cachedLayer(cacheDir, key string) (Layer, error) {
	name := layerFile(cacheDir, key)
	var l Layer
	b, err := os.ReadFile(name + ".json")
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err == nil {
		err = linkOrCopy(name+".blob", s.Path(l.Desc.Digest))
	}
	if err != nil {
		return Layer{}, fmt.Errorf("testimage: the layer %q was not made yet; `make deps` makes it: %w", key, err)
	}
	return l, nil
}

// keepLayer puts a plain tar into s as a layer, and keeps it in cacheDir.
func (s *Store) keepLayer(cacheDir, key string, plain []byte) (Layer, error) {
	name := layerFile(cacheDir, key)
	l, err := s.PutLayer(bytes.NewReader(plain))
	if err != nil {
		return Layer{}, err
	}
	if err := os.MkdirAll(cacheDir, 0o755); err != nil {
		return Layer{}, err
	}
	if err := os.Remove(name + ".blob"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Layer{}, err
	}
	if err := linkOrCopy(s.Path(l.Desc.Digest), name+".blob"); err != nil {
		return Layer{}, err
	}
	b, err := json.Marshal(l)
	if err != nil {
		return Layer{}, err
	}
	if err := os.WriteFile(name+".json.tmp", b, 0o644); err != nil {
		return Layer{}, err
	}
	return l, os.Rename(name+".json.tmp", name+".json")
}

func linkOrCopy(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, os.ErrExist) {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".copy-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// DiffTar is the layer that turns the tree of below into that of above: new and
// changed entries, and whiteouts for what is gone. Device nodes are left out.
func DiffTar(below, above []byte) ([]byte, error) {
	old := map[string]string{}
	if err := eachEntry(below, func(h *tar.Header, _ []byte, sum string) error {
		old[path.Clean(h.Name)] = sum
		return nil
	}); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	changed := map[string]bool{}
	err := eachEntry(above, func(h *tar.Header, body []byte, sum string) error {
		name := path.Clean(h.Name)
		was, had := old[name]
		delete(old, name)
		skip := had && was == sum && (h.Typeflag != tar.TypeLink || !changed[path.Clean(h.Linkname)])
		if skip || name == "." || h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock {
			return nil
		}
		changed[name] = true
		if h.Typeflag == tar.TypeLink && !changed[path.Clean(h.Linkname)] {
			// The other end is in the layer below: it must come along.
			return fmt.Errorf("testimage: %s links to an unchanged file", name)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := tw.Write(body)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(old) {
		if _, parentGone := old[path.Dir(name)]; parentGone {
			continue
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), ".wh."+path.Base(name)), Mode: 0o644, ModTime: epoch()}
		if err := tw.WriteHeader(h); err != nil {
			return nil, err
		}
	}
	if err := tw.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func eachEntry(b []byte, f func(h *tar.Header, body []byte, sum string) error) error {
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		sum := sha256.New()
		fmt.Fprintf(sum, "%c %o %d %d %s %d %d\n", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname, h.Devmajor, h.Devminor)
		sum.Write(body)
		if err := f(h, body, string(sum.Sum(nil))); err != nil {
			return err
		}
	}
}
