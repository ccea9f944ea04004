package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
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

	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/storage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// testRegistry is a registry in memory with faults on demand.
type testRegistry struct {
	*httptest.Server
	mu        sync.Mutex
	blobs     map[digest.Digest][]byte
	manifests map[string][]byte // by "repo:ref", ref being a tag or digest
	types     map[string]string

	user, password string         // basic auth when set
	cutAfter       atomic.Int64   // cut blob answers after so many bytes, once per request while > 0
	cuts           atomic.Int64   // how many answers to cut
	corrupt        digest.Digest  // answer this blob with other bytes
	hold           chan struct{}  // when set, blob answers stop half-way until it is closed
	gets           map[string]int // requests by path
	ranges         []string       // Range headers seen
	onBlob         func(d digest.Digest)
}

func newTestRegistry(t testing.TB, tlsServer bool) *testRegistry {
	r := &testRegistry{blobs: map[digest.Digest][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}, gets: map[string]int{}}
	if tlsServer {
		r.Server = httptest.NewTLSServer(r)
	} else {
		r.Server = httptest.NewServer(r)
	}
	t.Cleanup(r.Close)
	return r
}

func (r *testRegistry) host() string {
	return strings.TrimPrefix(strings.TrimPrefix(r.URL, "https://"), "http://")
}

func (r *testRegistry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	r.gets[q.Method+" "+q.URL.Path]++
	r.mu.Unlock()
	if r.user != "" {
		if u, p, ok := q.BasicAuth(); !ok || u != r.user || p != r.password {
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
		r.mu.Lock()
		var tags []string
		for k := range r.manifests {
			if tag, ok := strings.CutPrefix(k, repo+":"); ok && !strings.Contains(tag, ":") {
				tags = append(tags, tag)
			}
		}
		r.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
		return
	}
	if _, d, ok := strings.Cut(p, "/blobs/"); ok {
		r.blob(w, q, digest.Digest(d))
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (r *testRegistry) manifest(w http.ResponseWriter, q *http.Request, key string) {
	r.mu.Lock()
	data, ok := r.manifests[key]
	mt := r.types[key]
	r.mu.Unlock()
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

func (r *testRegistry) blob(w http.ResponseWriter, q *http.Request, d digest.Digest) {
	r.mu.Lock()
	data, ok := r.blobs[d]
	if q.Header.Get("Range") != "" {
		r.ranges = append(r.ranges, q.Header.Get("Range"))
	}
	hold := r.hold
	r.mu.Unlock()
	if !ok {
		http.NotFound(w, q)
		return
	}
	if r.onBlob != nil {
		r.onBlob(d)
	}
	if d == r.corrupt {
		data = append([]byte(nil), data...)
		data[len(data)/2] ^= 0xff
	}
	large := len(data) > 1<<16
	if hold != nil && large {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		select {
		case <-hold:
		case <-q.Context().Done():
			return
		}
		_, _ = w.Write(data[len(data)/2:])
		return
	}
	if n := r.cutAfter.Load(); n > 0 && large && r.cuts.Add(-1) >= 0 {
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

// testFile is an entry of a layer.
type testFile struct {
	name, body, link string
	typ              byte
	mode             int64
}

func tarLayer(t testing.TB, files ...testFile) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Typeflag: f.typ, Mode: f.mode, Linkname: f.link, Size: int64(len(f.body)), ModTime: time.Unix(1700000000, 0)}
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
		if _, err := w.Write([]byte(f.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, p []byte) []byte {
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

// push puts an image of the layers (plain tars) into the registry and returns its descriptor.
func (r *testRegistry) push(t testing.TB, repo, tag string, layers ...[]byte) ocispec.Descriptor {
	return r.pushAs(t, repo, tag, ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, layers...)
}

func (r *testRegistry) pushAs(t testing.TB, repo, tag string, p ocispec.Platform, layers ...[]byte) ocispec.Descriptor {
	conf := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	conf.Config.Cmd = []string{"/bin/sh"}
	conf.Config.Labels = map[string]string{"made": "here"}
	created := time.Unix(1700000000, 0).UTC()
	conf.Created = &created
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, l := range layers {
		conf.RootFS.DiffIDs = append(conf.RootFS.DiffIDs, digest.FromBytes(l))
		conf.History = append(conf.History, ocispec.History{Created: &created, CreatedBy: fmt.Sprint("layer ", i)})
		m.Layers = append(m.Layers, r.addBlob(ocispec.MediaTypeImageLayerGzip, gz(t, l)))
	}
	cb, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = r.addBlob(ocispec.MediaTypeImageConfig, cb)
	return r.pushDoc(t, repo, tag, m.MediaType, m)
}

func (r *testRegistry) pushDoc(t testing.TB, repo, tag, mt string, doc any) ocispec.Descriptor {
	mb, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return r.pushRaw(repo, tag, mt, mb)
}

func (r *testRegistry) pushRaw(repo, tag, mt string, mb []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(mb), Size: int64(len(mb))}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ref := range []string{tag, d.Digest.String()} {
		r.manifests[repo+":"+ref] = mb
		r.types[repo+":"+ref] = mt
	}
	return d
}

func (r *testRegistry) addBlob(mt string, p []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(p), Size: int64(len(p))}
	r.mu.Lock()
	r.blobs[d.Digest] = p
	r.mu.Unlock()
	return d
}

func (r *testRegistry) count(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gets[path]
}

// writeCA puts the server's certificate where a registry's CA is looked for.
func (r *testRegistry) writeCA(t testing.TB, dir string) {
	d := filepath.Join(dir, r.host())
	if err := os.MkdirAll(d, 0o700); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s", pemCert(r.Certificate()))
	if err := os.WriteFile(filepath.Join(d, "ca.crt"), b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// recorder is a Progress that remembers.
type recorder struct {
	mu    sync.Mutex
	lines []string
	aux   []any
}

func (r *recorder) Update(id, status string, current, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := status
	if id != "" {
		line = id + ": " + status
	}
	if n := len(r.lines); n > 0 && r.lines[n-1] == line {
		return
	}
	r.lines = append(r.lines, line)
}

func (r *recorder) Aux(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.aux = append(r.aux, v)
}

func (r *recorder) has(part string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if strings.Contains(l, part) {
			return true
		}
	}
	return false
}

// needRoot skips tests that make devices, owners and trusted attributes.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func newTestService(t testing.TB, root string, cfg Config) (*Service, *event.Bus) {
	t.Helper()
	needRoot(t)
	st, err := storage.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	if cfg.CertsDir == "" {
		cfg.CertsDir = t.TempDir()
	}
	bus := event.New()
	s, err := New(st, cfg, bus)
	if err != nil {
		t.Fatal(err)
	}
	return s, bus
}
