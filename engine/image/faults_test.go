package image

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/test/poll"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// noise is a file body that does not compress.
func noise(n int) string {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(b)
	return string(b)
}

// assertNothing fails when a refused pull left a name, a layer or a stage.
func assertNothing(t *testing.T, s *Service) {
	t.Helper()
	if n := s.Len(); n != 0 {
		t.Errorf("%d images", n)
	}
	if n := stages(t, s); n != 0 {
		t.Errorf("%d unfinished layers", n)
	}
}

func stages(t *testing.T, s *Service) (n int) {
	err := s.store.Snapshots.Walk(storage.Context(context.Background()), func(_ context.Context, i snapshots.Info) error {
		if strings.HasPrefix(i.Name, stagePrefix) {
			n++
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestPullFaults(t *testing.T) {
	good := tarLayer(t, baseLayer...)
	other := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	if runtime.GOARCH == "s390x" {
		other.Architecture = "amd64"
	}
	for _, c := range []struct {
		name  string
		setup func(r *testRegistry)
		auth  *registry.AuthConfig
		text  string // REF and REPO stand for what was asked for
		class func(error) bool
	}{
		{"no manifest", func(*testRegistry) {}, nil, "manifest for REF not found: manifest unknown: manifest unknown", errdefs.IsNotFound},
		{
			"no access", func(r *testRegistry) { r.push(t, "a", "latest", good); r.user = "u" }, nil,
			"pull access denied for REPO, repository does not exist or may require 'docker login'", errdefs.IsNotFound,
		},
		{
			"wrong password", func(r *testRegistry) { r.push(t, "a", "latest", good); r.user, r.password = "u", "p" },
			&registry.AuthConfig{Username: "u", Password: "x"}, "unauthorized: authentication required", errdefs.IsUnauthorized,
		},
		{
			"other platform", func(r *testRegistry) { r.pushAs(t, "a", "latest", other, good) }, nil,
			"no matching manifest for linux/" + runtime.GOARCH + " in the manifest list entries", errdefs.IsNotFound,
		},
		{"index of other platforms", func(r *testRegistry) {
			d := r.pushAs(t, "a", "x", other, good)
			d.Platform = &other
			r.pushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
		}, nil, "no matching manifest for linux/" + runtime.GOARCH + " in the manifest list entries", errdefs.IsNotFound},
		{"index in itself", func(r *testRegistry) {
			d := r.push(t, "a", "x", good)
			for range 6 {
				d = r.pushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
			}
		}, nil, "nested too deeply", errdefs.IsInvalidArgument},
		{"schema 1", func(r *testRegistry) {
			r.pushRaw("a", "latest", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[]}`))
		}, nil, "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed", errdefs.IsInvalidArgument},
		{"both kinds at once", func(r *testRegistry) {
			r.pushRaw("a", "latest", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`))
		}, nil, "both an index's and a manifest's members", errdefs.IsInvalidArgument},
		{"type says other", func(r *testRegistry) {
			r.pushRaw("a", "latest", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageManifest+`","config":{},"layers":[]}`))
		}, nil, "sent as", errdefs.IsInvalidArgument},
		{"no JSON", func(r *testRegistry) { r.pushRaw("a", "latest", ocispec.MediaTypeImageManifest, []byte(`<html>`)) }, nil, "invalid manifest", errdefs.IsInvalidArgument},
		{"digest of a layer", func(r *testRegistry) {
			r.push(t, "a", "latest", good)
			r.corrupt = digest.FromBytes(gz(t, good))
		}, nil, "failed verification", errdefs.IsDataLoss},
		{"content of a layer", func(r *testRegistry) {
			d := r.push(t, "a", "latest", good)
			var m ocispec.Manifest
			_ = json.Unmarshal(r.manifests["a:"+d.Digest.String()], &m)
			m.Layers[0] = r.addBlob(m.Layers[0].MediaType, gz(t, tarLayer(t, topLayer...)))
			r.pushDoc(t, "a", "latest", m.MediaType, m)
		}, nil, "content of layer failed verification", errdefs.IsDataLoss},
		{"layer that is no archive", func(r *testRegistry) { r.push(t, "a", "latest", []byte(noise(5000))) }, nil, "no valid tar archive", errdefs.IsInvalidArgument},
		{"evil layer", func(r *testRegistry) { r.push(t, "a", "latest", tarLayer(t, testFile{name: "../../evil", body: "x"})) }, nil, "outside its root", errdefs.IsInvalidArgument},
		{"layer is missing", func(r *testRegistry) {
			r.push(t, "a", "latest", good)
			delete(r.blobs, digest.FromBytes(gz(t, good)))
		}, nil, "not found", errdefs.IsNotFound},
		{"fewer layers than the configuration has", func(r *testRegistry) {
			d := r.push(t, "a", "latest", good, tarLayer(t, topLayer...))
			var m ocispec.Manifest
			_ = json.Unmarshal(r.manifests["a:"+d.Digest.String()], &m)
			m.Layers = m.Layers[:1]
			r.pushDoc(t, "a", "latest", m.MediaType, m)
		}, nil, "invalid image: 1 layers, but the configuration has 2", errdefs.IsInvalidArgument},
		{"unreachable", func(r *testRegistry) { r.Close() }, nil, "connect: connection refused", errdefs.IsUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := newTestRegistry(t, false)
			c.setup(reg)
			s, _ := newTestService(t, t.TempDir(), Config{MaxAttempts: 1})
			repo := reg.host() + "/a"
			err := s.Pull(context.Background(), PullOptions{Ref: repo, Auth: c.auth}, noProgress{})
			text := strings.ReplaceAll(strings.ReplaceAll(c.text, "REF", repo+":latest"), "REPO", repo)
			if err == nil || !strings.Contains(err.Error(), text) || !c.class(err) {
				t.Errorf("error %v (want %q)", err, text)
			}
			assertNothing(t, s)
		})
	}
}

func TestPullPlatformFromIndex(t *testing.T) {
	reg := newTestRegistry(t, false)
	host := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	riscv := ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	a := reg.pushAs(t, "a", "x", riscv, tarLayer(t, topLayer[2:]...))
	b := reg.pushAs(t, "a", "y", host, tarLayer(t, baseLayer...))
	a.Platform, b.Platform = &riscv, &host
	ix := reg.pushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b}})
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	ref := reg.host() + "/a"
	if err := s.Pull(ctx, PullOptions{Ref: ref}, noProgress{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(ctx, ref, nil)
	if err != nil || img.ID != ix.Digest || img.Manifest.Digest != b.Digest {
		t.Fatalf("%+v, %v", img, err)
	}
	if _, err := s.Resolve(ctx, ref, &riscv); !errdefs.IsNotFound(err) {
		t.Errorf("platform that is not here: %v", err)
	}
	if err := s.Pull(ctx, PullOptions{Ref: ref, Platform: &riscv}, noProgress{}); err != nil {
		t.Fatal(err)
	}
	if img, err = s.Resolve(ctx, ref, &riscv); err != nil || img.Manifest.Digest != a.Digest {
		t.Errorf("%+v, %v", img, err)
	}
	// Nothing of either is collected.
	if err := s.store.CollectNow(ctx); err != nil {
		t.Fatal(err)
	}
	sums, err := s.summaries(ctx, img.Target)
	if err != nil || len(sums) != 2 || !sums[0].Available || !sums[1].Available {
		t.Errorf("%+v, %v", sums, err)
	}
}

// TestPullCutConnection goes on where the connection broke off.
func TestPullCutConnection(t *testing.T) {
	reg := newTestRegistry(t, false)
	reg.push(t, "a", "latest", tarLayer(t, testFile{name: "f", body: noise(3 << 20)}))
	reg.cutAfter.Store(1 << 20)
	reg.cuts.Store(2)
	s, _ := newTestService(t, t.TempDir(), Config{})
	if err := s.Pull(context.Background(), PullOptions{Ref: reg.host() + "/a"}, noProgress{}); err != nil {
		t.Fatal(err)
	}
	if len(reg.ranges) == 0 || reg.ranges[0] == "bytes=0-" {
		t.Errorf("not resumed: %v", reg.ranges)
	}
}

// TestPullResumes: what a failed pull got is not fetched again by the next.
func TestPullResumes(t *testing.T) {
	reg := newTestRegistry(t, false)
	body := noise(3 << 20)
	reg.push(t, "a", "latest", tarLayer(t, baseLayer...), tarLayer(t, testFile{name: "f", body: body}))
	reg.hold = make(chan struct{})
	root := t.TempDir()
	s, _ := newTestService(t, root, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	rec := &recorder{}
	done := make(chan error, 1)
	go func() { done <- s.Pull(ctx, PullOptions{Ref: reg.host() + "/a"}, rec) }()
	waitFor(t, func() bool { return ingested(root) > 1<<20 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled pull: %v", err)
	}
	waitFor(t, func() bool { return stages(t, s) == 0 })
	assertNothing(t, s)
	if err := s.store.CollectNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	reg.mu.Lock()
	reg.hold, reg.ranges = nil, nil
	reg.mu.Unlock()
	if err := s.Pull(context.Background(), PullOptions{Ref: reg.host() + "/a"}, noProgress{}); err != nil {
		t.Fatal(err)
	}
	if len(reg.ranges) == 0 {
		t.Error("the second pull fetched all again")
	}
	img, err := s.Resolve(context.Background(), reg.host()+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	lower, err := s.store.LowerDirs(context.Background(), digest.Digest(img.Chain))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(lower[0], "f")); err != nil || string(b) != body {
		t.Errorf("content differs: %d bytes, %v", len(b), err)
	}
}

// ingested is the size of the largest partial download.
func ingested(root string) int64 {
	var size int64
	files, _ := filepath.Glob(filepath.Join(root, "image/content/ingest/*/data"))
	for _, f := range files {
		if fi, err := os.Stat(f); err == nil {
			size = max(size, fi.Size())
		}
	}
	return size
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	if !poll.Within(30*time.Second, cond) {
		t.Fatal("waited too long")
	}
}

// TestMain runs the test binary as a child that a test kills or starves.
func TestMain(m *testing.M) {
	switch os.Getenv("GANTRY_TEST_CHILD") {
	case "pull":
		childPull()
	case "full":
		childFull()
	}
	os.Exit(m.Run())
}

func childService(root string) *Service {
	st, err := storage.Open(root)
	if err != nil {
		fatal(err)
	}
	s, err := New(st, Config{CertsDir: filepath.Join(root, "none"), MaxAttempts: 1}, nil)
	if err != nil {
		fatal(err)
	}
	return s
}

func fatal(err error) {
	os.Stderr.WriteString(err.Error() + "\n")
	os.Exit(1)
}

func childPull() {
	s := childService(os.Getenv("GANTRY_TEST_ROOT"))
	if err := s.Pull(context.Background(), PullOptions{Ref: os.Getenv("GANTRY_TEST_REF")}, noProgress{}); err != nil {
		fatal(err)
	}
	os.Exit(0)
}

func child(t *testing.T, kind, root, ref string) *exec.Cmd {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "GANTRY_TEST_CHILD="+kind, "GANTRY_TEST_ROOT="+root, "GANTRY_TEST_REF="+ref)
	c.Stderr = os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// TestPullKilled: kill -9 in the middle of a download leaves nothing broken.
func TestPullKilled(t *testing.T) {
	needRoot(t)
	reg := newTestRegistry(t, false)
	reg.push(t, "a", "latest", tarLayer(t, baseLayer...), tarLayer(t, testFile{name: "f", body: noise(3 << 20)}))
	reg.hold = make(chan struct{})
	root := t.TempDir()
	ref := reg.host() + "/a"
	c := child(t, "pull", root, ref)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return ingested(root) > 1<<20 })
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	reg.mu.Lock()
	reg.hold, reg.ranges = nil, nil
	reg.mu.Unlock()
	s, _ := newTestService(t, root, Config{})
	assertNothing(t, s)
	if err := s.store.CollectNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The base was finished and waits for the next pull.
	if dirs, _ := filepath.Glob(filepath.Join(root, "image/overlay/snapshots/*")); len(dirs) > 1 {
		t.Errorf("directories left: %v", dirs)
	}
	if err := s.Pull(context.Background(), PullOptions{Ref: ref}, noProgress{}); err != nil {
		t.Fatal(err)
	}
	if len(reg.ranges) == 0 {
		t.Error("the second pull fetched all again")
	}
}

// childFull pulls onto a file system that is too small.
func childFull() {
	root := os.Getenv("GANTRY_TEST_ROOT")
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		fatal(err)
	}
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=4m"); err != nil {
		fatal(err)
	}
	s := childService(root)
	ctx := context.Background()
	err := s.Pull(ctx, PullOptions{Ref: os.Getenv("GANTRY_TEST_REF")}, noProgress{})
	if err == nil || !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "no space left on device") {
		fatal(errors.Join(errors.New("pull onto a full disk"), err))
	}
	if err := s.store.CollectNow(ctx); err != nil {
		fatal(err)
	}
	if n, err := s.DiskUsage(ctx); err != nil || n != 0 || s.Len() != 0 {
		fatal(errors.Join(errors.New("something is left"), err))
	}
	// What is removed may go a moment later.
	given := poll.Within(10*time.Second, func() bool {
		var fs syscall.Statfs_t
		err = syscall.Statfs(root, &fs)
		return err != nil || int64(fs.Bfree)*fs.Bsize >= 3<<20
	})
	if err != nil || !given {
		fatal(errors.Join(errors.New("space is not given back"), err))
	}
	os.Exit(0)
}

func TestPullNoSpace(t *testing.T) {
	needRoot(t)
	reg := newTestRegistry(t, false)
	reg.push(t, "a", "latest", tarLayer(t, baseLayer...), tarLayer(t, testFile{name: "f", body: noise(8 << 20)}), tarLayer(t, testFile{name: "g", body: noise(7 << 20)}),
		tarLayer(t, testFile{name: "h", body: strings.Repeat("compresses well", 1<<19)}))
	c := child(t, "full", t.TempDir(), reg.host()+"/a")
	c.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
}

func TestTLSAndAuth(t *testing.T) {
	reg := newTestRegistry(t, true)
	reg.push(t, "a", "latest", tarLayer(t, baseLayer...))
	reg.user, reg.password = "me", "secret"
	auth := &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: reg.host()}
	certs := t.TempDir()
	reg.writeCA(t, certs)
	s, _ := newTestService(t, t.TempDir(), Config{CertsDir: certs})
	ctx := context.Background()
	ref := reg.host() + "/a"
	if err := s.Pull(ctx, PullOptions{Ref: ref}, noProgress{}); !errdefs.IsNotFound(err) {
		t.Errorf("without credentials: %v", err)
	}
	other := *auth
	other.ServerAddress = "registry.example:5000"
	if err := s.Pull(ctx, PullOptions{Ref: ref, Auth: &other}, noProgress{}); err == nil {
		t.Error("credentials of another registry were sent")
	}
	if err := s.Pull(ctx, PullOptions{Ref: ref, Auth: auth}, noProgress{}); err != nil {
		t.Error(err)
	}
	if r, err := s.Login(ctx, *auth); err != nil || r.Status != "Login Succeeded" {
		t.Errorf("login: %+v, %v", r, err)
	}
	bad := *auth
	bad.Password = "x"
	if _, err := s.Login(ctx, bad); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with a wrong password: %v", err)
	}
	// A CA for the host that is not the server's: no way around it.
	wrong := newTestRegistry(t, true)
	dir := filepath.Join(t.TempDir(), "certs")
	wrong.writeCA(t, dir)
	s2, _ := newTestService(t, t.TempDir(), Config{CertsDir: dir})
	if err := os.Rename(filepath.Join(dir, wrong.host()), filepath.Join(dir, reg.host())); err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(dir, reg.host(), "ca.crt"), selfSigned(t), 0o600)
	if err := s2.Pull(ctx, PullOptions{Ref: ref, Auth: auth}, noProgress{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("wrong CA: %v", err)
	}
}

func TestPullTogether(t *testing.T) {
	reg := newTestRegistry(t, false)
	l := tarLayer(t, testFile{name: "f", body: noise(1 << 20)})
	reg.push(t, "a", "latest", l)
	reg.push(t, "b", "latest", l, tarLayer(t, baseLayer...))
	s, _ := newTestService(t, t.TempDir(), Config{})
	errs := make(chan error)
	for _, ref := range []string{"a", "a", "a", "b"} {
		go func() {
			errs <- s.Pull(context.Background(), PullOptions{Ref: reg.host() + "/" + ref}, &recorder{})
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := reg.count("GET /v2/a/blobs/"+digest.FromBytes(gz(t, l)).String()) + reg.count("GET /v2/b/blobs/"+digest.FromBytes(gz(t, l)).String()); n != 1 {
		t.Errorf("layer fetched %d times", n)
	}
}

func TestReadOnlyRoot(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	f := filepath.Join(root, "image")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := storage.Open(root); err == nil || !strings.Contains(err.Error(), f) {
		t.Errorf("opening where it cannot be: %v", err)
	}
}
