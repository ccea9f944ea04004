package testimage

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestHelloRuns(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		b, err := HelloELF(arch, HelloText)
		if err != nil {
			t.Fatal(err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", arch, err)
		}
		if f.Type != elf.ET_EXEC || len(f.Progs) != 1 || f.Progs[0].Filesz != uint64(len(b)) {
			t.Errorf("%s: unexpected headers %+v", arch, f.FileHeader)
		}
		if arch != runtime.GOARCH {
			continue
		}
		name := filepath.Join(t.TempDir(), "hello")
		if err := os.WriteFile(name, b, 0o755); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(name).CombinedOutput()
		if err != nil || string(out) != HelloText {
			t.Errorf("hello printed %q, %v", out, err)
		}
	}
}

func TestImageIsReproducible(t *testing.T) {
	var digests []string
	for range 2 {
		s, err := NewStore(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		d, err := Make(s, "index", t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		all, err := s.closure(d, map[digest.Digest]bool{})
		if err != nil {
			t.Fatal(err)
		}
		// One index, two manifests, two configs, two layers.
		if len(all) != 7 {
			t.Errorf("closure has %d blobs, want 7", len(all))
		}
		digests = append(digests, d.Digest.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds differ: %v", digests)
	}
}

func TestDiffTar(t *testing.T) {
	below, err := Tar([]Entry{{Name: "a/"}, {Name: "a/x", Body: []byte("1")}, {Name: "a/y", Body: []byte("2")}, {Name: "gone/"}, {Name: "gone/z"}})
	if err != nil {
		t.Fatal(err)
	}
	above, err := Tar([]Entry{{Name: "a/"}, {Name: "a/x", Body: []byte("1")}, {Name: "a/y", Body: []byte("3")}, {Name: "new"}})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := DiffTar(below, above)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a/y", "new", ".wh.gone"}
	tr := tar.NewReader(bytes.NewReader(diff))
	for i := 0; ; i++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if i != len(want) {
				t.Errorf("%d entries, want %d", i, len(want))
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if i >= len(want) || h.Name != want[i] {
			t.Errorf("entry %d is %s, want %v", i, h.Name, want)
		}
	}
}
