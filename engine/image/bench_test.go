package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/test/testregistry"
	kgzip "github.com/klauspost/compress/gzip"
)

// cpuTime reports the processor time per operation: wall time says little on a busy machine.
func cpuTime(b *testing.B, skipped *time.Duration) func() {
	start := used()
	return func() {
		b.ReportMetric(float64((used()-start-*skipped).Milliseconds())/float64(b.N), "cpu-ms/op")
	}
}

func used() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// benchLayer is a layer like a distribution's: many small files of text, some large.
func benchLayer(b *testing.B, seed uint64, files int) []byte {
	b.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	words := make([]string, 4000)
	for i := range words {
		words[i] = fmt.Sprintf("%x", r.Uint32()>>(r.Uint32()%16))
	}
	var list []testregistry.File
	for d := range files / 50 {
		dir := fmt.Sprintf("usr/%d/", d)
		list = append(list, testregistry.File{Name: dir, Typ: tar.TypeDir})
		for f := range 50 {
			var s strings.Builder
			for size := 1 << (8 + r.IntN(10)); s.Len() < size; {
				s.WriteString(words[r.IntN(len(words))] + " ")
			}
			list = append(list, testregistry.File{Name: fmt.Sprintf("%s%d", dir, f), Body: s.String()})
		}
	}
	return testregistry.TarLayer(b, list...)
}

// BenchmarkPull pulls an image of four layers from a registry in memory: fetched,
// verified twice, stored, unpacked, committed. MB/s are of the unpacked archive.
func BenchmarkPull(b *testing.B) {
	reg := testregistry.New(b, false)
	var layers [][]byte
	var total int64
	for i := range 4 {
		l := benchLayer(b, uint64(i), 1500)
		total += int64(len(l))
		layers = append(layers, l)
	}
	reg.Push(b, "a", "latest", layers...)
	b.SetBytes(total)
	var skip time.Duration
	defer cpuTime(b, &skip)()
	for b.Loop() {
		b.StopTimer()
		s, _ := newTestService(b, b.TempDir(), Config{})
		b.StartTimer()
		if err := s.Pull(context.Background(), pull.Options{Ref: reg.Host() + "/a"}, progress.Discard{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFloor is what no pull of the same can do without, in one goroutine: both
// digests, decompression, and going through the archive.
func BenchmarkFloor(b *testing.B) {
	var packed [][]byte
	var total int64
	for i := range 4 {
		l := benchLayer(b, uint64(i), 1500)
		total += int64(len(l))
		packed = append(packed, testregistry.Gz(b, l))
	}
	for name, open := range map[string]func(io.Reader) (io.Reader, error){
		"std":       func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"klauspost": func(r io.Reader) (io.Reader, error) { return kgzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(total)
			var skip time.Duration
			defer cpuTime(b, &skip)()
			for b.Loop() {
				for _, p := range packed {
					h, d := sha256.New(), sha256.New()
					z, err := open(io.TeeReader(bytes.NewReader(p), h))
					if err != nil {
						b.Fatal(err)
					}
					t := tar.NewReader(io.TeeReader(z, d))
					for {
						if _, err := t.Next(); err == io.EOF {
							break
						} else if err != nil {
							b.Fatal(err)
						}
						if _, err := io.Copy(io.Discard, t); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
		})
	}
}

// BenchmarkUntar is the plain way, as tar would in one process: decompress, go through
// the archive, make the files, and no more.
func BenchmarkUntar(b *testing.B) {
	needRoot(b)
	var packed [][]byte
	var total int64
	for i := range 4 {
		l := benchLayer(b, uint64(i), 1500)
		total += int64(len(l))
		packed = append(packed, testregistry.Gz(b, l))
	}
	b.SetBytes(total)
	var skip time.Duration
	defer cpuTime(b, &skip)()
	for b.Loop() {
		b.StopTimer()
		root := b.TempDir()
		b.StartTimer()
		for i, p := range packed {
			z, err := kgzip.NewReader(bytes.NewReader(p))
			if err != nil {
				b.Fatal(err)
			}
			untar(b, filepath.Join(root, fmt.Sprint(i)), tar.NewReader(z))
		}
	}
}

func untar(b *testing.B, root string, t *tar.Reader) {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.Fatal(err)
		}
		p := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(p, 0o755); err != nil {
				b.Fatal(err)
			}
			continue
		}
		f, err := os.Create(p)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(f, t); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		if err := os.Chtimes(p, h.ModTime, h.ModTime); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateRemove is what creating and removing a container asks of images.
func BenchmarkCreateRemove(b *testing.B) {
	reg := testregistry.New(b, false)
	reg.Push(b, "a", "latest", testregistry.TarLayer(b, baseLayer...), testregistry.TarLayer(b, topLayer...))
	s, _ := newTestService(b, b.TempDir(), Config{})
	ctx := context.Background()
	if err := s.Pull(ctx, pull.Options{Ref: reg.Host() + "/a"}, progress.Discard{}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		img, err := s.Resolve(ctx, reg.Host()+"/a", nil)
		if err != nil {
			b.Fatal(err)
		}
		c := id.New()
		if _, err := s.Lease(ctx, img, c); err != nil {
			b.Fatal(err)
		}
		if _, err := s.store.Layers().Create(c); err != nil {
			b.Fatal(err)
		}
		if err := s.store.Layers().Remove(c); err != nil {
			b.Fatal(err)
		}
		if err := s.Release(ctx, c); err != nil {
			b.Fatal(err)
		}
	}
}
