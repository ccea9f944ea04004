package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/driver/overlay"
	"github.com/gantry/gantry/test/poll"
	"github.com/gantry/gantry/test/testregistry"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// assertNothing fails when a refused pull left a name, a layer or an active snapshot.
func assertNothing(t *testing.T, s *Service) {
	t.Helper()
	if n := s.Len(); n != 0 {
		t.Errorf("%d images", n)
	}
	if n := activeSnapshots(t, s); n != 0 {
		t.Errorf("%d unfinished layers", n)
	}
}

func activeSnapshots(t *testing.T, s *Service) (n int) {
	err := s.store.Snapshots.Walk(storage.Context(context.Background()), func(_ context.Context, i snapshots.Info) error {
		if strings.HasPrefix(i.Name, "extract/") {
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
	good := testregistry.TarLayer(t, baseLayer...)
	other := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	if runtime.GOARCH == "s390x" {
		other.Architecture = "amd64"
	}
	for _, c := range []struct {
		name  string
		setup func(r *testregistry.Registry)
		auth  *registry.AuthConfig
		text  string // REF and REPO stand for what was asked for
		class func(error) bool
	}{
		{"no manifest", func(*testregistry.Registry) {}, nil, "manifest for REF not found: manifest unknown: manifest unknown", errdefs.IsNotFound},
		{
			"no access", func(r *testregistry.Registry) { r.Push(t, "a", "latest", good); r.User = "u" }, nil,
			"pull access denied for REPO, repository does not exist or may require 'docker login'", errdefs.IsNotFound,
		},
		{
			"wrong password", func(r *testregistry.Registry) { r.Push(t, "a", "latest", good); r.User, r.Password = "u", "p" },
			&registry.AuthConfig{Username: "u", Password: "x"}, "unauthorized: authentication required", errdefs.IsUnauthorized,
		},
		{
			"other platform", func(r *testregistry.Registry) { r.PushAs(t, "a", "latest", other, good) }, nil,
			"no matching manifest for linux/" + runtime.GOARCH + " in the manifest list entries", errdefs.IsNotFound,
		},
		{"index of other platforms", func(r *testregistry.Registry) {
			d := r.PushAs(t, "a", "x", other, good)
			d.Platform = &other
			r.PushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
		}, nil, "no matching manifest for linux/" + runtime.GOARCH + " in the manifest list entries", errdefs.IsNotFound},
		{"index in itself", func(r *testregistry.Registry) {
			d := r.Push(t, "a", "x", good)
			for range 6 {
				d = r.PushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
			}
		}, nil, "nested too deeply", errdefs.IsInvalidArgument},
		{"schema 1", func(r *testregistry.Registry) {
			r.PushRaw("a", "latest", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1,"fsLayers":[]}`))
		}, nil, "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed", errdefs.IsInvalidArgument},
		{"both kinds at once", func(r *testregistry.Registry) {
			r.PushRaw("a", "latest", ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`))
		}, nil, "both an index's and a manifest's members", errdefs.IsInvalidArgument},
		{"type says other", func(r *testregistry.Registry) {
			r.PushRaw("a", "latest", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"mediaType":"`+ocispec.MediaTypeImageManifest+`","config":{},"layers":[]}`))
		}, nil, "sent as", errdefs.IsInvalidArgument},
		{"no JSON", func(r *testregistry.Registry) {
			r.PushRaw("a", "latest", ocispec.MediaTypeImageManifest, []byte(`<html>`))
		}, nil, "invalid manifest", errdefs.IsInvalidArgument},
		{"digest of a layer", func(r *testregistry.Registry) {
			r.Push(t, "a", "latest", good)
			r.Corrupt = digest.FromBytes(testregistry.Gz(t, good))
		}, nil, "failed verification", errdefs.IsDataLoss},
		{"content of a layer", func(r *testregistry.Registry) {
			d := r.Push(t, "a", "latest", good)
			var m ocispec.Manifest
			_ = json.Unmarshal(r.Manifests["a:"+d.Digest.String()], &m)
			m.Layers[0] = r.AddBlob(m.Layers[0].MediaType, testregistry.Gz(t, testregistry.TarLayer(t, topLayer...)))
			r.PushDoc(t, "a", "latest", m.MediaType, m)
		}, nil, "content of layer failed verification", errdefs.IsDataLoss},
		{"layer that is no archive", func(r *testregistry.Registry) { r.Push(t, "a", "latest", []byte(testregistry.Noise(5000))) }, nil, "no valid tar archive", errdefs.IsInvalidArgument},
		{"evil layer", func(r *testregistry.Registry) {
			r.Push(t, "a", "latest", testregistry.TarLayer(t, testregistry.File{Name: "../../evil", Body: "x"}))
		}, nil, "outside its root", errdefs.IsInvalidArgument},
		{"layer is missing", func(r *testregistry.Registry) {
			r.Push(t, "a", "latest", good)
			delete(r.Blobs, digest.FromBytes(testregistry.Gz(t, good)))
		}, nil, "not found", errdefs.IsNotFound},
		{"fewer layers than the configuration has", func(r *testregistry.Registry) {
			d := r.Push(t, "a", "latest", good, testregistry.TarLayer(t, topLayer...))
			var m ocispec.Manifest
			_ = json.Unmarshal(r.Manifests["a:"+d.Digest.String()], &m)
			m.Layers = m.Layers[:1]
			r.PushDoc(t, "a", "latest", m.MediaType, m)
		}, nil, "invalid image: 1 layers, but the configuration has 2", errdefs.IsInvalidArgument},
		{"unreachable", func(r *testregistry.Registry) { r.Close() }, nil, "connect: connection refused", errdefs.IsUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			reg := testregistry.New(t, false)
			c.setup(reg)
			s, _ := newTestService(t, t.TempDir(), Config{MaxAttempts: 1})
			repo := reg.Host() + "/a"
			err := s.Pull(context.Background(), pull.Options{Ref: repo, Auth: c.auth}, progress.Discard{})
			text := strings.ReplaceAll(strings.ReplaceAll(c.text, "REF", repo+":latest"), "REPO", repo)
			if err == nil || !strings.Contains(err.Error(), text) || !c.class(err) {
				t.Errorf("error %v (want %q)", err, text)
			}
			assertNothing(t, s)
		})
	}
}

func TestPullPlatformFromIndex(t *testing.T) {
	reg := testregistry.New(t, false)
	host := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	riscv := ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	a := reg.PushAs(t, "a", "x", riscv, testregistry.TarLayer(t, topLayer[2:]...))
	b := reg.PushAs(t, "a", "y", host, testregistry.TarLayer(t, baseLayer...))
	a.Platform, b.Platform = &riscv, &host
	ix := reg.PushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b}})
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	ref := reg.Host() + "/a"
	if err := s.Pull(ctx, pull.Options{Ref: ref}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(ctx, ref, nil)
	if err != nil || img.ID != ix.Digest || img.Manifest.Digest != b.Digest {
		t.Fatalf("%+v, %v", img, err)
	}
	if _, err := s.Resolve(ctx, ref, &riscv); !errdefs.IsNotFound(err) {
		t.Errorf("platform that is not here: %v", err)
	}
	if err := s.Pull(ctx, pull.Options{Ref: ref, Platform: &riscv}, progress.Discard{}); err != nil {
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
	reg := testregistry.New(t, false)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, testregistry.File{Name: "f", Body: testregistry.Noise(3 << 20)}))
	reg.CutAfter.Store(1 << 20)
	reg.Cuts.Store(2)
	s, _ := newTestService(t, t.TempDir(), Config{})
	if err := s.Pull(context.Background(), pull.Options{Ref: reg.Host() + "/a"}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	if len(reg.Ranges) == 0 || reg.Ranges[0] == "bytes=0-" {
		t.Errorf("not resumed: %v", reg.Ranges)
	}
}

// TestPullResumes: what a failed pull got is not fetched again by the next.
func TestPullResumes(t *testing.T) {
	reg := testregistry.New(t, false)
	body := testregistry.Noise(3 << 20)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...), testregistry.TarLayer(t, testregistry.File{Name: "f", Body: body}))
	reg.Hold = make(chan struct{})
	root := t.TempDir()
	s, _ := newTestService(t, root, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	rec := &testregistry.Recorder{}
	done := make(chan error, 1)
	go func() { done <- s.Pull(ctx, pull.Options{Ref: reg.Host() + "/a"}, rec) }()
	waitFor(t, func() bool { return ingested(root) > 1<<20 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled pull: %v", err)
	}
	waitFor(t, func() bool { return activeSnapshots(t, s) == 0 })
	assertNothing(t, s)
	if err := s.store.CollectNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	reg.Mu.Lock()
	reg.Hold, reg.Ranges = nil, nil
	reg.Mu.Unlock()
	if err := s.Pull(context.Background(), pull.Options{Ref: reg.Host() + "/a"}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	if len(reg.Ranges) == 0 {
		t.Error("the second pull fetched all again")
	}
	img, err := s.Resolve(context.Background(), reg.Host()+"/a", nil)
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
	poll.Until(t, "the condition", cond)
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
	st, err := storage.Open(root, overlay.Open)
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
	if err := s.Pull(context.Background(), pull.Options{Ref: os.Getenv("GANTRY_TEST_REF")}, progress.Discard{}); err != nil {
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
	reg := testregistry.New(t, false)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...), testregistry.TarLayer(t, testregistry.File{Name: "f", Body: testregistry.Noise(3 << 20)}))
	reg.Hold = make(chan struct{})
	root := t.TempDir()
	ref := reg.Host() + "/a"
	c := child(t, "pull", root, ref)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return ingested(root) > 1<<20 })
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	reg.Mu.Lock()
	reg.Hold, reg.Ranges = nil, nil
	reg.Mu.Unlock()
	s, _ := newTestService(t, root, Config{})
	assertNothing(t, s)
	if err := s.store.CollectNow(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The base was finished and waits for the next pull.
	if dirs, _ := filepath.Glob(filepath.Join(root, "image/overlay/snapshots/*")); len(dirs) > 1 {
		t.Errorf("directories left: %v", dirs)
	}
	if err := s.Pull(context.Background(), pull.Options{Ref: ref}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	if len(reg.Ranges) == 0 {
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
	err := s.Pull(ctx, pull.Options{Ref: os.Getenv("GANTRY_TEST_REF")}, progress.Discard{})
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
	var fs syscall.Statfs_t
	if !poll.Within(poll.Limit, func() bool {
		return syscall.Statfs(root, &fs) == nil && int64(fs.Bfree)*fs.Bsize >= 3<<20
	}) {
		fatal(fmt.Errorf("space is not given back: %d bytes are free\n%s", int64(fs.Bfree)*fs.Bsize, listing(root)))
	}
	os.Exit(0)
}

// listing names the files of a tree that take space.
func listing(root string) string {
	var b strings.Builder
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintln(&b, err)
			return nil
		}
		var st syscall.Stat_t
		if syscall.Lstat(path, &st) == nil && st.Blocks > 0 {
			fmt.Fprintln(&b, st.Blocks*512, path)
		}
		return nil
	})
	return b.String()
}

func TestPullNoSpace(t *testing.T) {
	needRoot(t)
	reg := testregistry.New(t, false)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...), testregistry.TarLayer(t, testregistry.File{Name: "f", Body: testregistry.Noise(8 << 20)}), testregistry.TarLayer(t, testregistry.File{Name: "g", Body: testregistry.Noise(7 << 20)}),
		testregistry.TarLayer(t, testregistry.File{Name: "h", Body: strings.Repeat("compresses well", 1<<19)}))
	c := child(t, "full", t.TempDir(), reg.Host()+"/a")
	c.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
}

func TestTLSAndAuth(t *testing.T) {
	reg := testregistry.New(t, true)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...))
	reg.User, reg.Password = "me", "secret"
	auth := &registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: reg.Host()}
	certs := t.TempDir()
	reg.WriteCA(t, certs)
	s, _ := newTestService(t, t.TempDir(), Config{CertsDir: certs})
	ctx := context.Background()
	ref := reg.Host() + "/a"
	if err := s.Pull(ctx, pull.Options{Ref: ref}, progress.Discard{}); !errdefs.IsNotFound(err) {
		t.Errorf("without credentials: %v", err)
	}
	other := *auth
	other.ServerAddress = "registry.example:5000"
	if err := s.Pull(ctx, pull.Options{Ref: ref, Auth: &other}, progress.Discard{}); err == nil {
		t.Error("credentials of another registry were sent")
	}
	if err := s.Pull(ctx, pull.Options{Ref: ref, Auth: auth}, progress.Discard{}); err != nil {
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
	wrong := testregistry.New(t, true)
	dir := filepath.Join(t.TempDir(), "certs")
	wrong.WriteCA(t, dir)
	s2, _ := newTestService(t, t.TempDir(), Config{CertsDir: dir})
	if err := os.Rename(filepath.Join(dir, wrong.Host()), filepath.Join(dir, reg.Host())); err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(dir, reg.Host(), "ca.crt"), selfSigned(t), 0o600)
	if err := s2.Pull(ctx, pull.Options{Ref: ref, Auth: auth}, progress.Discard{}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("wrong CA: %v", err)
	}
}

func TestPullTogether(t *testing.T) {
	reg := testregistry.New(t, false)
	l := testregistry.TarLayer(t, testregistry.File{Name: "f", Body: testregistry.Noise(1 << 20)})
	reg.Push(t, "a", "latest", l)
	reg.Push(t, "b", "latest", l, testregistry.TarLayer(t, baseLayer...))
	s, _ := newTestService(t, t.TempDir(), Config{})
	errs := make(chan error)
	for _, ref := range []string{"a", "a", "a", "b"} {
		go func() {
			errs <- s.Pull(context.Background(), pull.Options{Ref: reg.Host() + "/" + ref}, &testregistry.Recorder{})
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := reg.Count("GET /v2/a/blobs/"+digest.FromBytes(testregistry.Gz(t, l)).String()) + reg.Count("GET /v2/b/blobs/"+digest.FromBytes(testregistry.Gz(t, l)).String()); n != 1 {
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
	if _, err := storage.Open(root, overlay.Open); err == nil || !strings.Contains(err.Error(), f) {
		t.Errorf("opening where it cannot be: %v", err)
	}
}
