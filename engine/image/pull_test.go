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

	"github.com/gantry/gantry/internal/id"
)

func pemCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

var (
	baseLayer = []testFile{
		{name: "./", typ: tar.TypeDir},
		{name: "bin/", typ: tar.TypeDir},
		{name: "bin/sh", body: "#!shell", mode: 0o4755},
		{name: "etc/", typ: tar.TypeDir, mode: 0o700},
		{name: "etc/passwd", body: "root:x:0:0::/:/bin/sh\n"},
	}
	topLayer = []testFile{
		{name: "etc/motd", body: "hello"}, // etc is implied: its mode is the base's
		{name: "bin/.wh.sh"},
		{name: "bin/bash", body: strings.Repeat("bash", 100_000), mode: 0o755},
	}
)

func TestPullAndLease(t *testing.T) {
	reg := newTestRegistry(t, false)
	desc := reg.push(t, "test/app", "latest", tarLayer(t, baseLayer...), tarLayer(t, topLayer...))
	root := t.TempDir()
	s, _ := newTestService(t, root, Config{})
	ctx := context.Background()
	ref := reg.host() + "/test/app"
	var rec recorder
	if err := s.Pull(ctx, PullOptions{Ref: ref}, &rec); err != nil {
		t.Fatal(err)
	}
	t.Log(strings.Join(rec.lines, "\n"))
	for _, want := range []string{
		"latest: Pulling from test/app", "Pulling fs layer", "Download complete", "Pull complete",
		"Digest: " + desc.Digest.String(), "Status: Downloaded newer image for " + ref + ":latest",
	} {
		t.Run(want, func(t *testing.T) {
			if !rec.has(want) {
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
	rec = recorder{}
	if err := s.Pull(ctx, PullOptions{Ref: ref}, &rec); err != nil {
		t.Fatal(err)
	}
	if !rec.has("Status: Image is up to date for " + ref + ":latest") {
		t.Errorf("second pull: %v", rec.lines)
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
	reg := newTestRegistry(t, false)
	for _, tag := range []string{"1", "2", "latest"} {
		reg.push(t, "x/a", tag, tarLayer(t, baseLayer...), tarLayer(t, testFile{name: tag, body: tag}))
	}
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	ref := reg.host() + "/x/a"
	if err := s.Pull(ctx, PullOptions{Ref: ref, AllTags: true}, noProgress{}); err != nil || s.Len() != 3 {
		t.Errorf("%d images, %v", s.Len(), err)
	}
	if err := s.Pull(ctx, PullOptions{Ref: ref + ":1", AllTags: true}, noProgress{}); err == nil {
		t.Error("a tag and all tags")
	}
	img, err := s.Resolve(ctx, ref+":1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pull(ctx, PullOptions{Ref: ref + "@" + img.ID.String()}, noProgress{}); err != nil {
		t.Error(err)
	}
}

// TestPullOddLayers: links into the layers below, a repeated layer, no layers at all.
func TestPullOddLayers(t *testing.T) {
	reg := newTestRegistry(t, false)
	base := tarLayer(t, append([]testFile{{name: "usr/", typ: tar.TypeDir}, {name: "lib", typ: tar.TypeSymlink, link: "usr"}}, baseLayer...)...)
	odd := tarLayer(t, testFile{name: "lib/f", body: "through"}, testFile{name: "copy", typ: tar.TypeLink, link: "etc/passwd"})
	empty := tarLayer(t)
	reg.push(t, "a", "latest", base, empty, odd, empty)
	reg.push(t, "scratch", "latest")
	s, _ := newTestService(t, t.TempDir(), Config{})
	ctx := context.Background()
	for _, r := range []string{"/a", "/scratch"} {
		if err := s.Pull(ctx, PullOptions{Ref: reg.host() + r}, noProgress{}); err != nil {
			t.Fatal(r, err)
		}
	}
	img, err := s.Resolve(ctx, reg.host()+"/a", nil)
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
	if img, err = s.Resolve(ctx, reg.host()+"/scratch", nil); err != nil {
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
	for _, g := range s.groups() {
		if n := g.tags(); strings.HasSuffix(n[0], "/a:latest") {
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
			if err := s2.Pull(ctx, PullOptions{Ref: repo + ":1"}, noProgress{}); err != nil {
				t.Error(repo, err)
			}
		}
	}
	err = s.Pull(ctx, PullOptions{Ref: addr + "/lib/oci:2"}, noProgress{})
	if err == nil || err.Error() != "manifest for "+addr+"/lib/oci:2 not found: manifest unknown: manifest unknown" {
		t.Errorf("missing tag: %v", err)
	}
}
