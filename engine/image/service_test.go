package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/driver/overlay"
	"github.com/gantry/gantry/test/testregistry"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// withImages starts a service that has pulled a:latest (two layers) and b:1 (one of them).
func withImages(t *testing.T) (s *Service, reg *testregistry.Registry, a, b ocispec.Descriptor) {
	t.Helper()
	reg = testregistry.New(t, false)
	a = reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...), testregistry.TarLayer(t, topLayer...))
	b = reg.Push(t, "b", "1", testregistry.TarLayer(t, baseLayer...))
	s, _ = newTestService(t, t.TempDir(), Config{})
	for _, r := range []string{"/a", "/b:1"} {
		if err := s.Pull(context.Background(), pull.Options{Ref: reg.Host() + r}, progress.Discard{}); err != nil {
			t.Fatal(err)
		}
	}
	return s, reg, a, b
}

func TestResolve(t *testing.T) {
	s, reg, a, b := withImages(t)
	ctx := context.Background()
	h := reg.Host()
	for _, c := range []struct {
		ref  string
		want digest.Digest
		text string
	}{
		{h + "/a", a.Digest, ""},
		{h + "/a:latest", a.Digest, ""},
		{h + "/b:1", b.Digest, ""},
		{h + "/a@" + a.Digest.String(), a.Digest, ""},
		{a.Digest.String(), a.Digest, ""},
		{a.Digest.Encoded(), a.Digest, ""},
		{a.Digest.Encoded()[:12], a.Digest, ""},
		{"sha256:" + b.Digest.Encoded()[:8], b.Digest, ""},
		{h + "/b", "", "No such image: " + h + "/b:latest"},
		{h + "/b@" + a.Digest.String(), "", "No such image: " + h + "/b@" + a.Digest.String()},
		{"foo", "", "No such image: foo:latest"},
		{"library/foo:x", "", "No such image: foo:x"},
		{"fffffffff", "", "No such image: fffffffff:latest"},
		{strings.Repeat("f", 64), "", "No such image: sha256:" + strings.Repeat("f", 64)},
		{"UPPER", "", "invalid reference format"},
		{"", "", "invalid reference format"},
		{"a b", "", "invalid reference format"},
	} {
		t.Run(c.ref, func(t *testing.T) {
			img, err := s.Resolve(ctx, c.ref, nil)
			switch {
			case c.text == "" && (err != nil || img.ID != c.want):
				t.Errorf("%q: %v", c.ref, err)
			case c.text != "" && (err == nil || err.Error() != c.text):
				t.Errorf("%q: %v, want %q", c.ref, err, c.text)
			}
		})
	}
	if a.Digest.Encoded()[0] == b.Digest.Encoded()[0] {
		if _, err := s.Resolve(ctx, a.Digest.Encoded()[:1], nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("ambiguous: %v", err)
		}
	}
}

func TestList(t *testing.T) {
	s, reg, _, _ := withImages(t)
	ctx := context.Background()
	list, err := s.List(ctx, ListOptions{SharedSize: true, Manifests: true})
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	for _, sum := range list {
		if sum.Size <= 0 || sum.Containers != -1 || len(sum.RepoTags) != 1 || len(sum.RepoDigests) != 1 || sum.Created != 1700000000 || sum.SharedSize <= 0 || len(sum.Manifests) != 1 {
			t.Errorf("%+v", sum)
		}
	}
	for n, c := range []struct {
		f    filter.Args
		want int
	}{
		{filter.Args{"reference": {"*/a"}}, 1},
		{filter.Args{"reference": {reg.Host() + "/b:1"}}, 1},
		{filter.Args{"reference": {"nope"}}, 0},
		{filter.Args{"dangling": {"true"}}, 0},
		{filter.Args{"dangling": {"false"}}, 2},
		{filter.Args{"label": {"made=here"}}, 2},
		{filter.Args{"label": {"made=there"}}, 0},
		{filter.Args{"before": {reg.Host() + "/a"}}, 0},
		{filter.Args{"until": {"2024-01-01"}}, 2},
		{filter.Args{"until": {"2020-01-01"}}, 0},
	} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if l, err := s.List(ctx, ListOptions{Filters: c.f}); err != nil || len(l) != c.want {
				t.Errorf("%v: %d, %v", c.f, len(l), err)
			}
		})
	}
	if _, err := s.List(ctx, ListOptions{Filters: filter.Args{"nope": {"x"}}}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestInspectHistory(t *testing.T) {
	s, reg, a, b := withImages(t)
	ctx := context.Background()
	in, err := s.Inspect(ctx, reg.Host()+"/a", nil, true)
	if err != nil || in.ID != a.Digest.String() || len(in.RootFS.Layers) != 2 || in.Config.Labels["made"] != "here" || in.Descriptor.Digest != a.Digest || len(in.Manifests) != 1 || !in.Manifests[0].Available {
		t.Errorf("%+v, %v", in, err)
	}
	h, err := s.History(ctx, b.Digest.String(), nil)
	if err != nil || len(h) != 1 || h[0].ID != b.Digest.String() || h[0].Size <= 0 || h[0].Tags[0] != reg.Host()+"/b:1" {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestTagAndRemove(t *testing.T) {
	s, reg, a, b := withImages(t)
	ctx := context.Background()
	ra, rb := reg.Host()+"/a:latest", reg.Host()+"/b:1"
	for bad, text := range map[string]string{
		"UPPER": "invalid reference format: repository name (library/UPPER) must be lowercase", "sha256:x": "refusing to create an ambiguous tag using digest algorithm as name",
		"x@" + a.Digest.String(): "refusing to create a tag with a digest reference",
	} {
		t.Run(bad, func(t *testing.T) {
			if err := s.Tag(ctx, ra, bad); err == nil || err.Error() != text || !errdefs.IsInvalidArgument(err) {
				t.Errorf("tag %q: %v", bad, err)
			}
		})
	}
	if err := s.Tag(ctx, "nope", "x"); !errdefs.IsNotFound(err) {
		t.Errorf("tag of nothing: %v", err)
	}
	for _, n := range []string{"one", "other:2"} {
		if err := s.Tag(ctx, ra, n); err != nil {
			t.Fatal(err)
		}
	}
	short := id.Short(a.Digest.String())
	if _, err := s.Remove(ctx, short, RemoveOptions{}); err == nil || err.Error() != "conflict: unable to delete "+short+" (must be forced) - image is referenced in multiple repositories" || !errdefs.IsConflict(err) {
		t.Errorf("by ID with several names: %v", err)
	}
	want := func(got []imagetypes.DeleteResponse, err error, list ...string) {
		t.Helper()
		var flat []string
		for _, r := range got {
			flat = append(flat, r.Untagged+r.Deleted)
		}
		if err != nil || !slices.Equal(flat, list) {
			t.Errorf("%v, %v, want %v", flat, err, list)
		}
	}
	got, err := s.Remove(ctx, "other:2", RemoveOptions{})
	want(got, err, "other:2")
	cid := id.New()
	img, err := s.Resolve(ctx, ra, nil)
	if err != nil {
		t.Fatal(err)
	}
	lease, err := s.Lease(ctx, img, cid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, short, RemoveOptions{Force: true, Running: []string{id.New(), cid}}); err == nil || !strings.HasSuffix(err.Error(), "(cannot be forced) - image is being used by running container "+id.Short(cid)) {
		t.Errorf("in use: %v", err)
	}
	got, err = s.Remove(ctx, "one", RemoveOptions{})
	want(got, err, "one:latest")
	if _, err := s.Remove(ctx, ra, RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("last name of a used image: %v", err)
	}
	if _, err := s.Remove(ctx, short, RemoveOptions{}); err == nil || !strings.HasSuffix(err.Error(), "(must be forced) - image is being used by stopped container "+id.Short(cid)) {
		t.Errorf("in use by stopped: %v", err)
	}
	got, err = s.Remove(ctx, short, RemoveOptions{Force: true})
	want(got, err, ra, a.Digest.String())
	got, err = s.Remove(ctx, rb, RemoveOptions{})
	want(got, err, rb, b.Digest.String())
	if err := s.store.CollectNow(ctx); err != nil {
		t.Fatal(err)
	}
	// The container still has its layers; when it goes, they go.
	if _, err := os.Stat(filepath.Join(lease.Lower[1], "bin/sh")); err != nil {
		t.Error(err)
	}
	if err := s.Release(ctx, cid); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { _, err := os.Stat(lease.Lower[1]); return errors.Is(err, os.ErrNotExist) })
	if n, err := s.DiskUsage(ctx); err != nil || n != 0 {
		t.Errorf("%d bytes left, %v", n, err)
	}
	if _, err := s.Lease(ctx, img, cid); !errdefs.IsNotFound(err) {
		t.Errorf("lease of a removed image: %v", err)
	}
}

func TestLeaseSurvivesRestart(t *testing.T) {
	reg := testregistry.New(t, false)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...))
	root := t.TempDir()
	needRoot(t)
	ctx := context.Background()
	st, err := storage.Open(root, overlay.Open)
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(st, Config{CertsDir: t.TempDir()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(ctx, pull.Options{Ref: reg.Host() + "/a"}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Resolve(ctx, reg.Host()+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	cid := id.New()
	if _, err := s.Lease(ctx, img, cid); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, reg.Host()+"/a", RemoveOptions{}); !errdefs.IsConflict(err) {
		t.Errorf("removing the image of a container: %v", err)
	}
	if _, err := s.Remove(ctx, img.ID.String(), RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = newTestService(t, root, Config{})
	if err := s.store.CollectNow(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := s.LeaseOf(ctx, cid)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(l.Lower[0], "bin/sh")); err != nil {
		t.Error(err)
	}
	if _, err := s.LeaseOf(ctx, id.New()); !errdefs.IsNotFound(err) {
		t.Errorf("lease of nobody: %v", err)
	}
}

func TestRetagMakesDangling(t *testing.T) {
	s, reg, a, b := withImages(t)
	ctx := context.Background()
	if err := s.Tag(ctx, reg.Host()+"/b:1", reg.Host()+"/a"); err != nil {
		t.Fatal(err)
	}
	l, err := s.List(ctx, ListOptions{Filters: filter.Args{"dangling": {"true"}}})
	if err != nil || len(l) != 1 || l[0].ID != a.Digest.String() || len(l[0].RepoTags) != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	rep, err := s.Prune(ctx, nil)
	if err != nil || len(rep.ImagesDeleted) != 1 || rep.ImagesDeleted[0].Deleted != a.Digest.String() || rep.SpaceReclaimed == 0 {
		t.Errorf("%+v, %v", rep, err)
	}
	if _, err := s.Resolve(ctx, b.Digest.String(), nil); err != nil {
		t.Error(err)
	}
	rep, err = s.Prune(ctx, filter.Args{"dangling": {"false"}})
	if err != nil || s.Len() != 0 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// savedNames are the files in an archive of images from host, whose manifest.json must name
// two images, the first of them also app:v1.
func savedNames(t *testing.T, archive []byte, host string) (names []string) {
	t.Helper()
	tr := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
		if h.Name == "manifest.json" {
			var m []struct{ RepoTags, Layers []string }
			if err := json.NewDecoder(tr).Decode(&m); err != nil || len(m) != 2 || !slices.Equal(m[0].RepoTags, []string{host + "/a:latest", "app:v1"}) || len(m[0].Layers) != 2 {
				t.Errorf("manifest.json: %+v, %v", m, err)
			}
		}
	}
}

func TestSaveLoad(t *testing.T) {
	s, reg, a, b := withImages(t)
	ctx := context.Background()
	if err := s.Tag(ctx, reg.Host()+"/a", "app:v1"); err != nil {
		t.Fatal(err)
	}
	var out, again bytes.Buffer
	refs := []string{reg.Host() + "/a", "app", b.Digest.String()}
	if err := s.Save(ctx, refs, nil, &out); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, refs, nil, &again); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("a second archive differs: %v", err)
	}
	names := savedNames(t, out.Bytes(), reg.Host())
	for _, n := range []string{"index.json", "oci-layout", "repositories", "manifest.json"} {
		t.Run(n, func(t *testing.T) {
			if !slices.Contains(names, n) {
				t.Errorf("no %s in %v", n, names)
			}
		})
	}
	for name, archive := range map[string][]byte{"plain": out.Bytes(), "packed": testregistry.Gz(t, out.Bytes())} {
		t.Run(name, func(t *testing.T) {
			s2, _ := newTestService(t, t.TempDir(), Config{})
			var rec testregistry.Recorder
			if err := s2.Load(ctx, bytes.NewReader(archive), false, &rec); err != nil {
				t.Fatal(name, err)
			}
			if !rec.Has("Loaded image: app:v1") || !rec.Has("Loaded image: "+reg.Host()+"/a:latest") || !rec.Has("Loaded image ID: "+b.Digest.String()) {
				t.Errorf("%s: %v", name, rec.Lines)
			}
			img, err := s2.Resolve(ctx, "app:v1", nil)
			if err != nil || img.ID != a.Digest {
				t.Errorf("%s: %+v, %v", name, img, err)
			}
			if err := s2.store.CollectNow(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := s2.Lease(ctx, img, id.New()); err != nil {
				t.Error(err)
			}
			if i, err := s2.Inspect(ctx, "app:v1", nil, true); err != nil || !i.Manifests[0].Available {
				t.Errorf("%+v, %v", i.Manifests, err)
			}
		})
	}
	if err := s.Save(ctx, []string{"nope"}, nil, io.Discard); err == nil || err.Error() != "No such image: nope:latest" {
		t.Errorf("save of nothing: %v", err)
	}
}

func TestLoadDockerArchive(t *testing.T) {
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	layer := testregistry.TarLayer(t, baseLayer...)
	conf, _ := json.Marshal(ocispec.Image{Platform: s.platform, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer), digest.FromBytes(layer)}}})
	man := `[{"Config":"c.json","RepoTags":["old:1"],"Layers":["x/layer.tar","y/layer.tar"]}]`
	files := []testregistry.File{
		{Name: "x/", Typ: tar.TypeDir},
		{Name: "x/layer.tar", Body: string(layer)},
		{Name: "y/layer.tar", Typ: tar.TypeSymlink, Link: "../x/layer.tar"},
		{Name: "c.json", Body: string(conf)},
		{Name: "manifest.json", Body: man},
	}
	var rec testregistry.Recorder
	if err := s.Load(ctx, bytes.NewReader(testregistry.TarLayer(t, files...)), true, &rec); err != nil || !rec.Has("Loaded image: old:1") {
		t.Fatal(err, rec.Lines)
	}
	if _, err := s.Resolve(ctx, "old:1", nil); err != nil {
		t.Error(err)
	}
	for name, c := range map[string]struct {
		files []testregistry.File
		text  string
	}{
		"no list":       {files[:3], "neither index.json nor manifest.json"},
		"missing layer": {[]testregistry.File{files[3], files[4]}, "x/layer.tar is missing from the archive"},
		"bad JSON":      {[]testregistry.File{{Name: "manifest.json", Body: "x"}}, "invalid manifest.json"},
		"bad digest":    {[]testregistry.File{{Name: "blobs/sha256/" + strings.Repeat("0", 64), Body: "x"}}, "failed verification"},
		"no digest":     {[]testregistry.File{{Name: "blobs/sha256/../x", Body: "x"}, {Name: "blobs/sha256/x", Body: "x"}}, "invalid digest"},
		"wrong layer":   {[]testregistry.File{{Name: "x/layer.tar", Body: string(testregistry.TarLayer(t, topLayer...))}, files[2], files[3], files[4]}, "failed verification"},
		"link loop":     {[]testregistry.File{{Name: "x/layer.tar", Typ: tar.TypeSymlink, Link: "layer.tar"}, files[3], files[4]}, "too many links"},
	} {
		t.Run(name, func(t *testing.T) {
			s2, _ := newTestService(t, t.TempDir(), Config{})
			err := s2.Load(ctx, bytes.NewReader(testregistry.TarLayer(t, c.files...)), true, progress.Discard{})
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v", name, err)
			}
			if err := s2.store.CollectNow(ctx); err != nil {
				t.Fatal(err)
			}
			if n, err := s2.DiskUsage(ctx); err != nil || n != 0 {
				t.Errorf("%s: %d bytes left, %v", name, n, err)
			}
		})
	}
	if err := s.Load(ctx, strings.NewReader("no archive"), true, progress.Discard{}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no archive: %v", err)
	}
}

// TestSkopeo has another tool read what Save writes, and write what Load reads.
func TestSkopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("no skopeo here")
	}
	s, reg, _, _ := withImages(t)
	ctx := context.Background()
	dir := t.TempDir()
	ar := filepath.Join(dir, "a.tar")
	f, err := os.Create(ar)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Save(ctx, []string{reg.Host() + "/a"}, nil, f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, way := range [][2]string{
		{"docker-archive:" + ar, "docker-archive:" + filepath.Join(dir, "d.tar") + ":x/d:1"},
		{"oci-archive:" + ar, "oci-archive:" + filepath.Join(dir, "o.tar") + ":x/o:1"},
	} {
		if out, err := exec.Command(skopeo, "--insecure-policy", "--tmpdir", dir, "copy", "-q", way[0], way[1]).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", way, err, out)
		}
	}
	for file, name := range map[string]string{"d.tar": "x/d:1", "o.tar": "x/o:1"} {
		t.Run(file, func(t *testing.T) {
			f, err := os.Open(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			var rec testregistry.Recorder
			if err := s.Load(ctx, f, false, &rec); err != nil || !rec.Has("Loaded image: "+name) {
				t.Errorf("%s: %v %v", file, err, rec.Lines)
			}
			f.Close()
		})
	}
}

func TestEvents(t *testing.T) {
	reg := testregistry.New(t, false)
	reg.Push(t, "a", "latest", testregistry.TarLayer(t, baseLayer...))
	s, bus := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	_, sub := bus.Subscribe(time.Time{})
	defer sub.Close()
	ref := reg.Host() + "/a"
	if err := errors.Join(s.Pull(ctx, pull.Options{Ref: ref}, progress.Discard{}), s.Tag(ctx, ref, "t"), s.Save(ctx, []string{"t"}, nil, io.Discard)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, "t", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(ctx, ref, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"pull", "tag", "save", "untag", "untag", "delete"} {
		t.Run(want, func(t *testing.T) {
			if m := <-sub.C(); string(m.Action) != want || m.Type != "image" || m.Actor.Attributes["name"] == "" {
				t.Errorf("%+v, want %s", m, want)
			}
		})
	}
}
