// Package testregistry is an image registry in memory that can inject faults, with helpers that
// make images for it.
package testregistry

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is a registry in memory with faults on demand.
type Registry struct {
	*httptest.Server
	// Mu protects what follows while requests are under way.
	Mu        sync.Mutex
	Blobs     map[digest.Digest][]byte
	Manifests map[string][]byte // by "repo:ref", ref being a tag or digest
	types     map[string]string

	User, Password string         // basic auth when set
	CutAfter       atomic.Int64   // cut blob answers after so many bytes, once per request while > 0
	Cuts           atomic.Int64   // how many answers to cut
	Corrupt        digest.Digest  // answer this blob with other bytes
	Hold           chan struct{}  // when set, blob answers stop half-way until it is closed
	gets           map[string]int // requests by path
	Ranges         []string       // Range headers seen
	OnBlob         func(d digest.Digest)
}

// New returns a running registry, which the test's end closes.
func New(t testing.TB, tlsServer bool) *Registry {
	r := &Registry{Blobs: map[digest.Digest][]byte{}, Manifests: map[string][]byte{}, types: map[string]string{}, gets: map[string]int{}}
	if tlsServer {
		r.Server = httptest.NewTLSServer(r)
	} else {
		r.Server = httptest.NewServer(r)
	}
	t.Cleanup(r.Close)
	return r
}

// Host is the registry as references name it.
func (r *Registry) Host() string {
	return strings.TrimPrefix(strings.TrimPrefix(r.URL, "https://"), "http://")
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.Mu.Lock()
	r.gets[q.Method+" "+q.URL.Path]++
	r.Mu.Unlock()
	if r.User != "" {
		if u, p, ok := q.BasicAuth(); !ok || u != r.User || p != r.Password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
	}
	p := strings.TrimPrefix(q.URL.Path, "/v2/")
	if repo, ref, ok := strings.Cut(p, "/manifests/"); ok {
		r.manifest(w, q, repo+":"+ref)
		return
	}
	if repo, ok := strings.CutSuffix(p, "/tags/list"); ok {
		r.Mu.Lock()
		var tags []string
		for k := range r.Manifests {
			if tag, ok := strings.CutPrefix(k, repo+":"); ok && !strings.Contains(tag, ":") {
				tags = append(tags, tag)
			}
		}
		r.Mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
		return
	}
	if _, d, ok := strings.Cut(p, "/blobs/"); ok {
		r.blob(w, q, digest.Digest(d))
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (r *Registry) manifest(w http.ResponseWriter, q *http.Request, key string) {
	r.Mu.Lock()
	data, ok := r.Manifests[key]
	mt := r.types[key]
	r.Mu.Unlock()
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		return
	}
	w.Header().Set("Content-Type", mt)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(data).String())
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	if q.Method == http.MethodGet {
		_, _ = w.Write(data)
	}
}

func (r *Registry) blob(w http.ResponseWriter, q *http.Request, d digest.Digest) {
	r.Mu.Lock()
	data, ok := r.Blobs[d]
	if q.Header.Get("Range") != "" {
		r.Ranges = append(r.Ranges, q.Header.Get("Range"))
	}
	hold := r.Hold
	r.Mu.Unlock()
	if !ok {
		http.NotFound(w, q)
		return
	}
	if r.OnBlob != nil {
		r.OnBlob(d)
	}
	if d == r.Corrupt {
		data = append([]byte(nil), data...)
		data[len(data)/2] ^= 0xff
	}
	large := len(data) > 1<<16
	if hold != nil && large {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-hold:
		case <-q.Context().Done():
			return
		}
		_, _ = w.Write(data[len(data)/2:])
		return
	}
	if n := r.CutAfter.Load(); n > 0 && large && r.Cuts.Add(-1) >= 0 {
		start := int64(0)
		if rg := q.Header.Get("Range"); rg != "" {
			_, _ = fmt.Sscanf(rg, "bytes=%d-", &start)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(int64(len(data))-start))
		if start > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(data[start:min(start+n, int64(len(data)))])
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(data))
}

// File is an entry of a layer.
type File struct {
	Name, Body, Link string
	Typ              byte
	Mode             int64
}

// TarLayer is a layer of the files.
func TarLayer(t testing.TB, files ...File) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Typeflag: f.Typ, Mode: f.Mode, Linkname: f.Link, Size: int64(len(f.Body)), ModTime: time.Unix(1700000000, 0)}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(f.Body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Gz packs a layer.
func Gz(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Push puts an image of the layers (plain tars) into the registry and returns its descriptor.
func (r *Registry) Push(t testing.TB, repo, tag string, layers ...[]byte) ocispec.Descriptor {
	return r.PushAs(t, repo, tag, ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, layers...)
}

// PushAs is Push for a platform.
func (r *Registry) PushAs(t testing.TB, repo, tag string, p ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	conf := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	conf.Config.Cmd = []string{"/bin/sh"}
	conf.Config.Labels = map[string]string{"made": "here"}
	created := time.Unix(1700000000, 0).UTC()
	conf.Created = &created
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, l := range layers {
		conf.RootFS.DiffIDs = append(conf.RootFS.DiffIDs, digest.FromBytes(l))
		conf.History = append(conf.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprint("layer ", i)})
		m.Layers = append(m.Layers, r.AddBlob(ocispec.MediaTypeImageLayerGzip, Gz(t, l)))
	}
	cb, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = r.AddBlob(ocispec.MediaTypeImageConfig, cb)
	return r.PushDoc(t, repo, tag, m.MediaType, m)
}

// PushDoc puts a document under a tag and its digest.
func (r *Registry) PushDoc(t testing.TB, repo, tag, mt string, doc any) ocispec.Descriptor {
	mb, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return r.PushRaw(repo, tag, mt, mb)
}

// PushRaw is PushDoc for bytes.
func (r *Registry) PushRaw(repo, tag, mt string, mb []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(mb), Size: int64(len(mb))}
	r.Mu.Lock()
	defer r.Mu.Unlock()
	for _, ref := range []string{tag, d.Digest.String()} {
		r.Manifests[repo+":"+ref] = mb
		r.types[repo+":"+ref] = mt
	}
	return d
}

// AddBlob puts a blob into the registry.
func (r *Registry) AddBlob(mt string, p []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(p), Size: int64(len(p))}
	r.Mu.Lock()
	r.Blobs[d.Digest] = p
	r.Mu.Unlock()
	return d
}

// Count tells how often "METHOD path" was asked for.
func (r *Registry) Count(path string) int {
	r.Mu.Lock()
	defer r.Mu.Unlock()
	return r.gets[path]
}

// WriteCA puts the server's certificate where a registry's CA is looked for.
func (r *Registry) WriteCA(t testing.TB, dir string) {
	d := filepath.Join(dir, r.Host())
	if err := os.MkdirAll(d, 0o700); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw}))
	if err := os.WriteFile(filepath.Join(d, "ca.crt"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Noise is a file body that does not compress.
func Noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return string(b)
}
