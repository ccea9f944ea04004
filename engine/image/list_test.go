package image

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/test/testregistry"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A list remembers what it read, and yet tells what is there now: more when another
// platform of a listed image arrives, less when blobs it shares no more are collected.
func TestListFollowsTheStore(t *testing.T) {
	reg := testregistry.New(t, false)
	host := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	riscv := ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	a := reg.PushAs(t, "a", "x", riscv, testregistry.TarLayer(t, testregistry.File{Name: "f", Body: testregistry.Noise(64 << 10)}))
	b := reg.PushAs(t, "a", "y", host, testregistry.TarLayer(t, testregistry.File{Name: "g", Body: testregistry.Noise(16 << 10)}))
	a.Platform, b.Platform = &riscv, &host
	reg.PushDoc(t, "a", "latest", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{a, b}})
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	ref := reg.Host() + "/a"
	if err := s.Pull(ctx, pull.Options{Ref: ref}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	// listed checks the only image's size against a sum made without memory.
	listed := func(what string) int64 {
		t.Helper()
		for range 2 { // read, remembered
			sums, err := s.List(ctx, ListOptions{})
			if err != nil || len(sums) != 1 {
				t.Fatalf("%s: %+v, %v", what, sums, err)
			}
			want, err := s.size(ctx, *sums[0].Descriptor)
			if err != nil || sums[0].Size != want {
				t.Errorf("%s: size %d, is %d, %v", what, sums[0].Size, want, err)
			}
		}
		sums, _ := s.List(ctx, ListOptions{})
		return sums[0].Size
	}
	one := listed("one platform")
	if err := s.Pull(ctx, pull.Options{Ref: ref, Platform: &riscv}, progress.Discard{}); err != nil {
		t.Fatal(err)
	}
	if two := listed("two platforms"); two < one+64<<10 {
		t.Errorf("the second platform of 64 KiB made %d of %d", two, one)
	}
	other := reg.Host() + "/b"
	if err := s.Tag(ctx, ref, other); err != nil {
		t.Fatal(err)
	}
	sums, err := s.List(ctx, ListOptions{})
	if err != nil || len(sums) != 1 || len(sums[0].RepoTags) != 2 {
		t.Errorf("a second name: %+v, %v", sums, err)
	}
	if f, ok := s.facts.Get(sums[0].Descriptor.Digest); !ok || !f.whole {
		t.Errorf("not remembered as whole: %+v", f)
	}
}

func BenchmarkList300(b *testing.B) {
	reg := testregistry.New(b, false)
	s, _ := newTestService(b, b.TempDir(), Config{})
	ctx := context.Background()
	for i := range 300 {
		repo := fmt.Sprintf("r%d", i)
		reg.Push(b, repo, "latest", testregistry.TarLayer(b, testregistry.File{Name: "f", Body: repo}))
		if err := s.Pull(ctx, pull.Options{Ref: reg.Host() + "/" + repo}, progress.Discard{}); err != nil {
			b.Fatal(err)
		}
	}
	list := func(b *testing.B) {
		if sums, err := s.List(ctx, ListOptions{}); err != nil || len(sums) != 300 {
			b.Fatal(len(sums), err)
		}
	}
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			list(b)
		}
	})
	b.Run("changed", func(b *testing.B) {
		n := 0
		for b.Loop() {
			b.StopTimer()
			n++
			if err := s.Tag(ctx, reg.Host()+"/r0", fmt.Sprintf("%s/r0:%d", reg.Host(), n)); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
			list(b)
		}
	})
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s.facts.Purge()
			list(b)
		}
	})
}
