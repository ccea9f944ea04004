package testimage

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Recipes are the images that Make knows, with what each is for.
func Recipes() map[string]string {
	return map[string]string{
		"hello":       "prints a greeting; one static program, amd64 or arm64",
		"busybox":     "Debian's busybox-static with all its applets; runs sh",
		"multi":       "busybox and four layers over it: files replaced, deleted, an opaque directory, odd owners",
		"users":       "busybox with an /etc/passwd and /etc/group of its own, USER 1000, an entrypoint, labels, a volume",
		"index":       "an index of this machine's platform and one more",
		"dockerlist":  "the same with Docker's own media types",
		"wrongarch":   "a single manifest for linux/s390x",
		"big":         "busybox and three layers of 24 MiB of noise, for interrupted pulls",
		"debian":      "Debian bookworm by mmdebstrap (minbase)",
		"services":    "the Debian image and a layer with redis-server and nginx",
		"baddiff":     "a layer whose uncompressed digest is not what the config says",
		"evil-dotdot": "a layer with ../ names",
		"evil-link":   "a layer that writes through a symbolic link to /",
		"evil-hard":   "a layer with hard links out of the root",
		"evil-abs":    "a layer with absolute names and device nodes",
		"evil-dev":    "an image whose /dev and /proc are symbolic links, and /dev/null a regular file",
	}
}

// Make builds the image of a recipe into s. Large ones are kept in cacheDir.
func Make(s *Store, recipe, cacheDir string) (ocispec.Descriptor, error) {
	switch recipe {
	case "hello":
		return s.hello(HostPlatform())
	case "debian", "services":
		return s.debian(recipe == "services", cacheDir)
	case "index", "dockerlist":
		return s.index(recipe == "dockerlist")
	}
	base, err := s.busyboxLayer()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	img := Image{Config: shellConfig(), Layers: []Layer{base}}
	switch recipe {
	case "busybox":
	case "wrongarch":
		img.Platform = ocispec.Platform{OS: "linux", Architecture: "s390x"}
	case "users":
		img.Config = usersConfig()
		err = s.addLayers(&img, usersLayer())
	case "multi":
		err = s.addLayers(&img, multiLayers()...)
	case "big":
		err = s.addLayers(&img, noise(1), noise(2), noise(3))
	case "baddiff":
		img.DiffIDs = []digest.Digest{digest.FromString("not this one")}
	default:
		entries, ok := evilLayers()[recipe]
		if !ok {
			return ocispec.Descriptor{}, fmt.Errorf("testimage: unknown recipe %q", recipe)
		}
		err = s.addLayers(&img, entries)
	}
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.PutImage(img)
}

func (s *Store) addLayers(img *Image, layers ...[]Entry) error {
	for _, entries := range layers {
		l, err := s.PutEntries(entries)
		if err != nil {
			return err
		}
		img.Layers = append(img.Layers, l)
	}
	return nil
}

func shellConfig() ocispec.ImageConfig {
	return ocispec.ImageConfig{
		Cmd: []string{"sh"},
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
}

func (s *Store) hello(p ocispec.Platform) (ocispec.Descriptor, error) {
	bin, err := HelloELF(p.Architecture, HelloText)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	l, err := s.PutEntries([]Entry{{Name: "hello", Mode: 0o755, Body: bin}})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.PutImage(Image{
		Platform: p, Layers: []Layer{l},
		Config: ocispec.ImageConfig{Cmd: []string{"/hello"}, Env: shellConfig().Env},
	})
}

func (s *Store) index(docker bool) (ocispec.Descriptor, error) {
	var all []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		bin, err := HelloELF(arch, HelloText)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		l, err := s.PutEntries([]Entry{{Name: "hello", Mode: 0o755, Body: bin}})
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d, err := s.PutImage(Image{
			Platform: ocispec.Platform{OS: "linux", Architecture: arch}, Layers: []Layer{l}, Docker: docker,
			Config: ocispec.ImageConfig{Cmd: []string{"/hello"}, Env: shellConfig().Env},
		})
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		all = append(all, d)
	}
	return s.PutIndex(docker, all...)
}

// busyboxLayer is the root of a small system around Debian's busybox-static.
func (s *Store) busyboxLayer() (Layer, error) {
	path, err := busyboxPath()
	if err != nil {
		return Layer{}, err
	}
	bin, err := os.ReadFile(path)
	if err != nil {
		return Layer{}, err
	}
	out, err := exec.Command(path, "--list").Output()
	if err != nil {
		return Layer{}, err
	}
	entries := []Entry{
		{Name: "bin/"},
		{Name: "bin/busybox", Mode: 0o755, Body: bin},
		{Name: "dev/"},
		{Name: "etc/"},
		{Name: "home/"},
		{Name: "proc/"},
		{Name: "sys/"},
		{Name: "usr/"},
		{Name: "usr/bin/"},
		{Name: "usr/bin/env", Type: tar.TypeSymlink, Link: "../../bin/busybox"},
		{Name: "root/", Mode: 0o700},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "var/"},
		{Name: "var/tmp/", Mode: 0o1777},
		{Name: "etc/passwd", Body: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{Name: "etc/group", Body: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Name: "etc/not-executable", Mode: 0o644, Body: []byte("text\n")},
	}
	for _, applet := range strings.Fields(string(out)) {
		if applet != "busybox" {
			entries = append(entries, Entry{Name: "bin/" + applet, Type: tar.TypeLink, Link: "bin/busybox", Mode: 0o755})
		}
	}
	return s.PutEntries(entries)
}

func busyboxPath() (string, error) {
	inPath, err := exec.LookPath("busybox")
	if err != nil {
		inPath = "/bin/busybox"
	}
	for _, p := range []string{inPath, "/bin/busybox", "/usr/bin/busybox"} {
		b, err := os.ReadFile(p)
		// A dynamically linked one names its loader.
		if err == nil && !bytes.Contains(b, []byte("/ld-linux")) && !bytes.Contains(b, []byte("/ld-musl")) {
			return p, nil
		}
	}
	return "", fmt.Errorf("testimage: no static busybox in PATH: `make deps` fetches one")
}

func usersConfig() ocispec.ImageConfig {
	c := shellConfig()
	c.User = "alice"
	c.Entrypoint = []string{"/bin/sh", "-c", "echo \"entry $0 $@\"; id -un; pwd"}
	c.Cmd = []string{"default"}
	c.WorkingDir = "/srv/app"
	c.Env = append(c.Env, "FROM_IMAGE=yes")
	c.Labels = map[string]string{"org.example.kind": "users"}
	c.ExposedPorts = map[string]struct{}{"8080/tcp": {}}
	c.Volumes = map[string]struct{}{"/srv/data": {}}
	c.StopSignal = "SIGINT"
	return c
}

func usersLayer() []Entry {
	return []Entry{
		{Name: "etc/passwd", Body: []byte("root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n7:x:0:0:digits are ids:/:/bin/sh\n")},
		{Name: "etc/group", Body: []byte("root:x:0:\nalice:x:1000:\naudio:x:29:alice\nvideo:x:44:alice\n")},
		{Name: "home/alice/", UID: 1000, GID: 1000},
		{Name: "srv/"},
		{Name: "srv/app/", UID: 1000, GID: 1000},
		{Name: "srv/data/", UID: 1000, GID: 1000},
		{Name: "srv/data/seed", UID: 1000, GID: 1000, Body: []byte("from the image\n")},
	}
}

func multiLayers() [][]Entry {
	return [][]Entry{
		{
			{Name: "data/"},
			{Name: "data/a", Body: []byte("a1\n")},
			{Name: "data/b", Body: []byte("b1\n")},
			{Name: "data/opaque/"},
			{Name: "data/opaque/old", Body: []byte("old\n")},
		},
		{{Name: "data/a", Body: []byte("a2\n"), UID: 12, GID: 34, Mode: 0o4755}, {Name: "data/.wh.b"}},
		{{Name: "data/opaque/"}, {Name: "data/opaque/.wh..wh..opq"}, {Name: "data/opaque/new", Body: []byte("new\n")}},
		{
			{Name: "data/hard", Type: tar.TypeReg, Body: []byte("same inode\n")},
			{Name: "data/hard2", Type: tar.TypeLink, Link: "data/hard"},
			{Name: "data/link", Type: tar.TypeSymlink, Link: "a"},
			{Name: "data/fifo", Type: tar.TypeFifo},
		},
	}
}

// noise is 24 MiB that does not compress, the same for the same seed.
func noise(seed uint64) []Entry {
	b := make([]byte, 24<<20)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := 0; i < len(b); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		for j := range 8 {
			b[i+j] = byte(x >> (8 * j))
		}
	}
	return []Entry{{Name: fmt.Sprintf("noise-%d", seed), Body: b}}
}

// evilLayers are layers that try to leave the root they are unpacked into.
func evilLayers() map[string][]Entry {
	pwn := []byte("a layer left its root\n")
	return map[string][]Entry{
		"evil-dotdot": {
			{Name: "../../../../../../../../tmp/gantry-evil-dotdot", Raw: true, Body: pwn},
			{Name: "x/../../../../../../../../tmp/gantry-evil-dotdot2", Raw: true, Body: pwn},
		},
		"evil-link": {
			{Name: "out", Type: tar.TypeSymlink, Link: "/"},
			{Name: "out/tmp/gantry-evil-link", Body: pwn},
			{Name: "up", Type: tar.TypeSymlink, Link: "../../../../../../../.."},
			{Name: "up/tmp/gantry-evil-link2", Body: pwn},
		},
		"evil-hard": {
			{Name: "passwd", Type: tar.TypeLink, Link: "../../../../../../../../etc/hostname", Raw: true},
		},
		"evil-abs": {
			{Name: "/tmp/gantry-evil-abs", Raw: true, Body: pwn},
			{Name: "sda", Type: tar.TypeBlock, Major: 8},
		},
		"evil-dev": {
			{Name: ".wh.dev"},
			{Name: ".wh.proc"},
			{Name: "dev", Type: tar.TypeSymlink, Link: "/etc"},
			{Name: "proc", Type: tar.TypeSymlink, Link: "/tmp"},
		},
	}
}
