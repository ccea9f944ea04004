package unpack

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"github.com/containerd/errdefs"
)

// A layer that is damaged is the image's fault, wherever the decompressor notices it.
func TestDamagedStream(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(bytes.Repeat([]byte("a layer "), 1000)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	good := b.Bytes()
	bad := func(at int) []byte {
		d := bytes.Clone(good)
		d[at] ^= 0xff
		return d
	}
	for name, data := range map[string][]byte{
		"header": bad(2), "deflate": bad(10), "checksum": bad(len(good) - 8),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Decompress(bytes.NewReader(data))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				r.Close()
			}
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
