package image

import (
	"archive/tar"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/test/testregistry"
)

var (
	baseLayer = []testregistry.File{
		{Name: "./", Typ: tar.TypeDir},
		{Name: "bin/", Typ: tar.TypeDir},
		{Name: "bin/sh", Body: "#!shell", Mode: 0o4755},
		{Name: "etc/", Typ: tar.TypeDir, Mode: 0o700},
		{Name: "etc/passwd", Body: "root:x:0:0::/:/bin/sh\n"},
	}
	topLayer = []testregistry.File{
		{Name: "etc/motd", Body: "hello"}, // etc is implied: its mode is the base's
		{Name: "bin/.wh.sh"},
		{Name: "bin/bash", Body: strings.Repeat("bash", 100_000), Mode: 0o755},
	}
)

func TestPullAndLease(t *testing.T) {
	reg := testregistry.New(t, false)
	desc := reg.Push(t, "test/app", "latest", testregistry.TarLayer(t, baseLayer...), testregistry.TarLayer(t, topLayer...))
	root := t.TempDir()
	s, _ := newTestService(t, root, Config{})
	ctx := context.Background()
	ref := reg.Host() + "/test/app"
	var rec testregistry.Recorder
	if err := s.Pull(ctx, pull.Options{Ref: ref}, &rec); err != nil {
		t.Fatal(err)
	}
	t.Log(strings.Join(rec.Lines, "\n"))
	for _, want := range []string{
		"latest: Pulling from test/app", "Pulling fs layer", "Download complete", "Pull complete",
		"Digest: " + desc.Digest.String(), "Status: Downloaded newer image for " + ref + ":latest",
	} {
		t.Run(want, func(t *testing.T) {
			if !rec.Has(want) {
				t.Errorf("no line %q", want)
			}
		})
	}
	img, err := s.Resolve(ctx, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if img.ID != desc.Digest || img.Config.Config.Cmd[0] != "/bin/sh" {
		t.Errorf("resolved %+v", img)
	}
	cid := id.New()
	l, err := s.Lease(ctx, img, cid)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Lower) != 2 {
		t.Fatalf("lower directories %v", l.Lower)
	}
	if b, err := os.ReadFile(filepath.Join(l.Lower[0], "etc/motd")); err != nil || string(b) != "hello" {
		t.Errorf("motd: %q, %v", b, err)
	}
	if fi, err := os.Stat(filepath.Join(l.Lower[0], "etc")); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("implied directory: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Lstat(filepath.Join(l.Lower[0], "bin/sh")); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("whiteout: %v", err)
	}
	rec = testregistry.Recorder{}
	if err := s.Pull(ctx, pull.Options{Ref: ref}, &rec); err != nil {
		t.Fatal(err)
	}
	if !rec.Has("Status: Image is up to date for " + ref + ":latest") {
		t.Errorf("second pull: %v", rec.Lines)
	}
	again, err := s.LeaseOf(ctx, cid)
	if err != nil || again.Lower[0] != l.Lower[0] {
		t.Errorf("lease: %v, %v", again, err)
	}
	if err := s.Release(ctx, cid); err != nil {
		t.Error(err)
	}
}

// selfSigned makes a certificate of nobody.
func selfSigned(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestPullAllTags(t *testing.T) {
	reg := testregistry.New(t, false)
	for _, tag := range []string{"1", "2", "latest"} {
		reg.Push(t, "x/a", tag, testregistry.TarLayer(t, baseLayer...), testregistry.TarLayer(t, testregistry.File{Name: tag, Body: tag}))
	}
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	ref := reg.Host() + "/x/a"
	if err := s.Pull(ctx, pull.Options{Ref: ref, AllTags: true}, progress.Discard{}); err != nil || s.Len() != 3 {
		t.Errorf("%d images, %v", s.Len(), err)
	}
	if err := s.Pull(ctx, pull.Options{Ref: ref + ":1", AllTags: true}, progress.Discard{}); err == nil {
		t.Error("a tag and all tags")
	}
	img, err := s.Resolve(ctx, ref+":1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(ctx, pull.Options{Ref: ref + "@" + img.ID.String()}, progress.Discard{}); err != nil {
		t.Error(err)
	}
}

// TestPullOddLayers: links into the layers below, a repeated layer, no layers at all.
func TestPullOddLayers(t *testing.T) {
	reg := testregistry.New(t, false)
	base := testregistry.TarLayer(t, append([]testregistry.File{{Name: "usr/", Typ: tar.TypeDir}, {Name: "lib", Typ: tar.TypeSymlink, Link: "usr"}}, baseLayer...)...)
	odd := testregistry.TarLayer(t, testregistry.File{Name: "lib/f", Body: "through"}, testregistry.File{Name: "copy", Typ: tar.TypeLink, Link: "etc/passwd"})
	empty := testregistry.TarLayer(t)
	reg.Push(t, "a", "latest", base, empty, odd, empty)
	reg.Push(t, "scratch", "latest")
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	for _, r := range []string{"/a", "/scratch"} {
		if err := s.Pull(ctx, pull.Options{Ref: reg.Host() + r}, progress.Discard{}); err != nil {
			t.Fatal(r, err)
		}
	}
	img, err := s.Resolve(ctx, reg.Host()+"/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Lease(ctx, img, id.New())
	if err != nil || len(l.Lower) != 4 {
		t.Fatal(l, err)
	}
	for name, want := range map[string]string{"usr/f": "through", "copy": "root:x:0:0::/:/bin/sh\n", "etc/passwd": "root:x:0:0::/:/bin/sh\n"} {
		t.Run(name, func(t *testing.T) {
			if b, err := os.ReadFile(filepath.Join(l.Lower[1], name)); err != nil || string(b) != want {
				t.Errorf("%s: %q, %v", name, b, err)
			}
		})
	}
	if img, err = s.Resolve(ctx, reg.Host()+"/scratch", nil); err != nil {
		t.Fatal(err)
	}
	if l, err = s.Lease(ctx, img, id.New()); err != nil || len(l.Lower) != 1 {
		t.Errorf("%v, %v", l, err)
	}
}

// TestDockerRegistry pulls from the registry that Debian packages.
func TestDockerRegistry(t *testing.T) {
	needRoot(t)
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("no docker-registry here")
	}
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("no skopeo here")
	}
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/reg}}\nhttp: {addr: %s}\n", dir, addr)
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(bin, "serve", filepath.Join(dir, "config.yml"))
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	waitFor(t, func() bool {
		n, err := net.Dial("tcp", addr)
		if err == nil {
			n.Close()
		}
		return err == nil
	})
	s, _, _, _ := withImages(t)
	ctx := context.Background()
	f, err := os.Create(filepath.Join(dir, "b.tar"))
	if err != nil {
		t.Fatal(err)
	}
	var name string
	for _, g := range s.names.Groups() {
		if n := g.Tags(); strings.HasSuffix(n[0], "/a:latest") {
			name = n[0]
		}
	}
	if err := s.Save(ctx, []string{name}, nil, f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	plain := "dir:" + filepath.Join(dir, "plain")
	if out, err := exec.Command(skopeo, "--insecure-policy", "--tmpdir", dir, "copy", "-q", "--dest-decompress", "oci-archive:"+f.Name(), plain).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, format := range []string{"oci", "v2s2"} {
		for _, comp := range []string{"gzip", "zstd"} {
			if format == "v2s2" && comp == "zstd" {
				continue
			}
			repo := addr + "/lib/" + format + comp
			out, err := exec.Command(skopeo, "--insecure-policy", "--tmpdir", dir, "copy", "-q", "-f", format, "--dest-compress-format", comp,
				"--dest-tls-verify=false", plain, "docker://"+repo+":1").CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			s2, _ := newTestService(t, t.TempDir(), Config{})
			if err := s2.Pull(ctx, pull.Options{Ref: repo + ":1"}, progress.Discard{}); err != nil {
				t.Error(repo, err)
			}
		}
	}
	err = s.Pull(ctx, pull.Options{Ref: addr + "/lib/oci:2"}, progress.Discard{})
	if err == nil || err.Error() != "manifest for "+addr+"/lib/oci:2 not found: manifest unknown: manifest unknown" {
		t.Errorf("missing tag: %v", err)
	}
}
