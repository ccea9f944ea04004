package manifest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	oci  = ocispec.MediaTypeImageManifest
	ix   = ocispec.MediaTypeImageIndex
	dock = "application/vnd.docker.distribution.manifest.v2+json"
)

func TestSniff(t *testing.T) {
	for _, c := range []struct{ doc, declared, want, text string }{
		{`{"schemaVersion":2,"config":{},"layers":[]}`, "", oci, ""},
		{`{"schemaVersion":2,"config":{},"layers":[]}`, dock, dock, ""},
		{`{"schemaVersion":2,"manifests":[]}`, "application/octet-stream", ix, ""},
		{`{"schemaVersion":2,"manifests":[]}`, ix, ix, ""},
		{`{"schemaVersion":1,"fsLayers":[]}`, oci, schema1, ""},
		{`{"mediaType":"` + schema1Signed + `"}`, "", schema1, ""},
		{`{"schemaVersion":2,"config":{},"manifests":[]}`, oci, "", "both"},
		{`{"schemaVersion":2,"layers":[],"manifests":[]}`, ix, "", "both"},
		{`{"schemaVersion":2,"config":null,"manifests":[]}`, ix, ix, ""},
		{`{"schemaVersion":2}`, oci, "", "neither"},
		{`{"schemaVersion":2,"config":{},"mediaType":"` + ix + `"}`, "", "", "does not fit"},
		{`{"schemaVersion":2,"config":{}}`, ix, "", "does not fit"},
		{`{"schemaVersion":2,"config":{},"mediaType":"` + oci + `"}`, dock, "", "sent as"},
		{`{"schemaVersion":2,"config":{},"mediaType":"text/html"}`, "", "", "unsupported"},
		{`[]`, "", "", "invalid manifest"},
		{``, "", "", "invalid manifest"},
	} {
		t.Run(c.doc+" "+c.declared, func(t *testing.T) {
			got, err := Sniff([]byte(c.doc), c.declared)
			switch {
			case c.text == "" && (err != nil || got != c.want):
				t.Errorf("%s as %s: %q, %v", c.doc, c.declared, got, err)
			case c.text != "" && (!errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), c.text)):
				t.Errorf("%s as %s: %q, %v, want %q", c.doc, c.declared, got, err, c.text)
			}
		})
	}
	if _, err := Sniff(make([]byte, MaxSize+1), ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("too large: %v", err)
	}
}

func TestParseLimits(t *testing.T) {
	d := `{"mediaType":"x","digest":"sha256:` + strings.Repeat("a", 64) + `","size":%s}`
	man := func(config, layers string) string {
		return `{"schemaVersion":2,"config":` + config + `,"layers":[` + layers + `]}`
	}
	good := fmt.Sprintf(d, "1")
	if _, err := ParseManifest([]byte(man(good, good)), ""); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		man(fmt.Sprintf(d, "-1"), ""), man(fmt.Sprintf(d, "9000000"), ""), man(good, fmt.Sprintf(d, "2000000000000000000")),
		man(`{"digest":"sha256:../../x"}`, ""), man(`{"digest":""}`, ""), man(`{"digest":"md5:d41d8cd98f00b204e9800998ecf8427e"}`, ""),
		man(good, strings.TrimSuffix(strings.Repeat(good+",", MaxLayers+1), ",")),
	} {
		t.Run(bad, func(t *testing.T) {
			if _, err := ParseManifest([]byte(bad), ""); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%.80s: %v", bad, err)
			}
		})
	}
	m, err := ParseManifest([]byte(man(good, strings.Replace(good, `"size"`, `"urls":["http://evil/"],"data":"eA==","size"`, 1))), "")
	if err != nil || m.Layers[0].URLs != nil || m.Layers[0].Data != nil {
		t.Errorf("foreign addresses are kept: %+v, %v", m, err)
	}
	if _, err := ParseConfig([]byte(`{"rootfs":{"type":"layers","diff_ids":["sha256:x"]}}`)); !errdefs.IsInvalidArgument(err) {
		t.Errorf("diff ID: %v", err)
	}
}

func TestSelect(t *testing.T) {
	p := func(arch, variant string) *ocispec.Platform {
		return &ocispec.Platform{OS: "linux", Architecture: arch, Variant: variant}
	}
	i := &ocispec.Index{Manifests: []ocispec.Descriptor{
		{MediaType: oci, Size: 1},
		{MediaType: oci, Size: 2, Platform: p("arm", "v6")},
		{MediaType: oci, Size: 3, Platform: p("arm", "v7")},
		{MediaType: oci, Size: 4, Platform: p("amd64", "")},
		{MediaType: "text/plain", Size: 5, Platform: p("arm", "v7")},
		{MediaType: oci, Size: 6, Platform: p("arm", "v7"), Annotations: map[string]string{"vnd.docker.reference.type": "attestation-manifest"}},
	}}
	var got []int64
	for _, d := range Select(i, platforms.Only(*p("arm", "v7"))) {
		got = append(got, d.Size)
	}
	if fmt.Sprint(got) != "[3 2 1]" {
		t.Errorf("selected %v", got)
	}
}

func TestCompression(t *testing.T) {
	for mt, want := range map[string]string{
		ocispec.MediaTypeImageLayerGzip: "gzip", ocispec.MediaTypeImageLayerZstd: "zstd", ocispec.MediaTypeImageLayer: "",
		"application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "!",
		"application/vnd.oci.image.layer.nondistributable.v1.tar": "!", "application/vnd.in-toto+json": "!",
	} {
		t.Run(mt, func(t *testing.T) {
			got, err := Compression(mt)
			if (want == "!") != errdefs.IsNotImplemented(err) || want != "!" && got != want {
				t.Errorf("%s: %q, %v", mt, got, err)
			}
		})
	}
}

// FuzzParse feeds the decoders what a registry may send.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"sha256:`+strings.Repeat("a", 64)+`"},"layers":[]}`), oci)
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"mediaType":"`+oci+`","platform":{"os":"linux"}}]}`), ix)
	f.Add([]byte(`{"rootfs":{"diff_ids":[]},"config":{"Healthcheck":{"Test":["CMD"]}}}`), "")
	f.Fuzz(func(t *testing.T, data []byte, declared string) {
		if i, err := ParseIndex(data, declared); err == nil {
			Select(i, platforms.Default())
		}
		m, merr := ParseManifest(data, declared)
		if merr == nil && m.MediaType == "" {
			t.Error("a manifest without type")
		}
		c, cerr := ParseConfig(data)
		if merr == nil && cerr == nil {
			_, _ = ChainIDs(m, c)
		}
		if cerr == nil {
			if _, err := json.Marshal(c); err != nil {
				t.Error(err)
			}
		}
	})
}
