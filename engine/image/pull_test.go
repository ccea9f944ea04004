package image

import (
	"archive/tar"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
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
	for _, want := range []string{"latest: Pulling from " + ref, "Pulling fs layer", "Download complete", "Pull complete",
		"Digest: " + desc.Digest.String(), "Status: Downloaded newer image for " + ref + ":latest"} {
		if !rec.has(want) {
			t.Errorf("no line %q", want)
		}
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
