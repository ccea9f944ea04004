package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// entry is one member of a test archive.
type entry struct {
	name, body, link string
	typ              byte
	mode             int64
	uid              int
	pax              map[string]string
	dev              [2]int64
}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Name: e.name, Typeflag: e.typ, Mode: e.mode, Linkname: e.link, Size: int64(len(e.body)), Uid: e.uid,
			PAXRecords: e.pax, Devmajor: e.dev[0], Devminor: e.dev[1], ModTime: time.Unix(1600000000, 0),
		}
		if e.typ == 0 {
			h.Typeflag = tar.TypeReg
		}
		if e.mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openDir(t testing.TB, p string) int {
	t.Helper()
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// tree lists a directory: "path type mode [target]", with opaque and device marks.
func listing(t testing.TB, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case fi.IsDir():
			out[rel] = "dir " + strconv.FormatInt(int64(fi.Mode().Perm()), 8)
			var b [1]byte
			if n, err := unix.Lgetxattr(p, opaqueXattr, b[:]); err == nil && n == 1 {
				out[rel] += " opaque"
			}
		case fi.Mode()&os.ModeSymlink != 0:
			l, _ := os.Readlink(p)
			out[rel] = "-> " + l
		case fi.Mode()&os.ModeCharDevice != 0:
			var st unix.Stat_t
			_ = unix.Lstat(p, &st)
			out[rel] = "char " + strconv.Itoa(int(unix.Major(st.Rdev))) + ":" + strconv.Itoa(int(unix.Minor(st.Rdev)))
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			if len(b) > 40 {
				b = append(b[:40:40], "..."...)
			}
			out[rel] = "file " + string(b)
		default:
			out[rel] = fi.Mode().Type().String()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes devices and trusted attributes")
	}
}

// TestExtract is the corpus of archives, evil ones among them. Each is extracted beside
// a directory that must not change.
func TestExtract(t *testing.T) {
	needRoot(t)
	dir := func(name string) entry { return entry{name: name, typ: tar.TypeDir} }
	sym := func(name, to string) entry { return entry{name: name, typ: tar.TypeSymlink, link: to} }
	hard := func(name, to string) entry { return entry{name: name, typ: tar.TypeLink, link: to} }
	for _, c := range []struct {
		name    string
		entries []entry
		want    map[string]string // what must be there; "" must not
		fails   bool
		needs   bool
	}{
		{
			name: "plain", entries: []entry{dir("./"), dir("./a/"), {name: "./a/f", body: "x"}, sym("a/s", "/etc/passwd")},
			want: map[string]string{"a": "dir 755", "a/f": "file x", "a/s": "-> /etc/passwd"},
		},
		{name: "absolute name", entries: []entry{{name: "/etc/f", body: "x"}}, want: map[string]string{"etc/f": "file x"}},
		{name: "dot dot name", entries: []entry{{name: "../victim", body: "x"}}, fails: true},
		{name: "dot dot inside", entries: []entry{{name: "a/../../victim", body: "x"}}, fails: true},
		{
			name: "write through absolute link", entries: []entry{sym("l", "/"), {name: "l/victim/f", body: "x"}},
			want: map[string]string{"victim/f": "file x"},
		},
		{
			name: "write through relative link", entries: []entry{sym("l", "../.."), {name: "l/victim/f", body: "x"}},
			want: map[string]string{"victim/f": "file x"},
		},
		{name: "write through host link", entries: []entry{sym("l", "HOST"), {name: "l/victim", body: "x"}}},
		{name: "link loop", entries: []entry{sym("a", "b"), sym("b", "a"), {name: "a/f", body: "x"}}, fails: true},
		{name: "file over link", entries: []entry{sym("l", "HOST/victim"), {name: "l", body: "x"}}, want: map[string]string{"l": "file x"}},
		{
			name: "directory over link keeps link's target", entries: []entry{sym("l", "HOST"), {name: "l", typ: tar.TypeDir, mode: 0o777}},
			want: map[string]string{"l": "dir 777"},
		},
		{
			name: "hard link to link, then write", entries: []entry{sym("l", "HOST/victim"), hard("h", "l"), {name: "h", body: "x"}},
			want: map[string]string{"h": "file x"},
		},
		{name: "hard link outside", entries: []entry{hard("h", "../victim")}, fails: true},
		{name: "hard link through link", entries: []entry{sym("l", "HOST"), hard("h", "l/victim")}, needs: true},
		{name: "hard link to host path", entries: []entry{hard("h", "/etc/passwd")}, needs: true},
		{name: "hard link to directory", entries: []entry{dir("d"), hard("h", "d")}, fails: true},
		{name: "hard link", entries: []entry{{name: "f", body: "x"}, hard("a/h", "/f")}, want: map[string]string{"a/h": "file x"}},
		{name: "whiteout", entries: []entry{{name: "a/.wh.f"}}, want: map[string]string{"a/f": "char 0:0", "a/.wh.f": ""}},
		{name: "whiteout of dot dot", entries: []entry{{name: "a/.wh..."}}, fails: true},
		{name: "whiteout of dot", entries: []entry{{name: "a/.wh.."}}, fails: true},
		{name: "whiteout of nothing", entries: []entry{{name: "a/.wh."}}, fails: true},
		{name: "whiteout through link", entries: []entry{sym("l", "HOST"), {name: "l/.wh.victim"}}},
		{
			name: "opaque", entries: []entry{dir("a"), {name: "a/f", body: "x"}, {name: "a/.wh..wh..opq"}},
			want: map[string]string{"a": "dir 755 opaque", "a/f": "file x"},
		},
		{name: "aufs notes", entries: []entry{{name: ".wh..wh.plnk", typ: tar.TypeDir}, {name: ".wh..wh.aufs"}}, want: map[string]string{".wh..wh.plnk": ""}},
		{
			name: "whiteout then directory", entries: []entry{{name: ".wh.a"}, dir("a"), {name: "a/f", body: "x"}},
			want: map[string]string{"a": "dir 755 opaque", "a/f": "file x"},
		},
		{
			name: "whiteout then implied directory", entries: []entry{{name: ".wh.a"}, {name: "a/f", body: "x"}},
			want: map[string]string{"a": "dir 755 opaque"},
		},
		{
			name: "directory then whiteout", entries: []entry{dir("a"), {name: "a/f", body: "x"}, {name: ".wh.a"}},
			want: map[string]string{"a": "dir 755 opaque", "a/f": "file x"},
		},
		{name: "file then whiteout", entries: []entry{{name: "f", body: "x"}, {name: ".wh.f"}}, want: map[string]string{"f": "file x"}},
		{name: "file over directory", entries: []entry{dir("a"), {name: "a/b/c", body: "x"}, {name: "a", body: "y"}}, want: map[string]string{"a": "file y"}},
		{name: "directory over file", entries: []entry{{name: "a", body: "y"}, dir("a"), {name: "a/f", body: "x"}}, want: map[string]string{"a/f": "file x"}},
		{
			name: "directory replaced by link, then below", entries: []entry{dir("a"), dir("b"), {name: "a/x", body: "1"}, sym("a", "b"), {name: "a/f", body: "x"}},
			want: map[string]string{"a": "-> b", "b/f": "file x"},
		},
		{name: "below a file", entries: []entry{{name: "a", body: "y"}, {name: "a/f", body: "x"}}, fails: true},
		{
			name: "devices", entries: []entry{{name: "null", typ: tar.TypeChar, dev: [2]int64{1, 3}, mode: 0o666}, {name: "fifo", typ: tar.TypeFifo}},
			want: map[string]string{"null": "char 1:3", "fifo": "p---------"},
		},
		{
			name: "overlay attributes are not set", entries: []entry{{name: "d", typ: tar.TypeDir, pax: map[string]string{
				"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
			}}},
			want: map[string]string{"d": "dir 755"},
		},
		{name: "owner out of range", entries: []entry{{name: "f", uid: 1 << 32}}, fails: true},
		{name: "negative owner", entries: []entry{{name: "f", uid: -2}}, fails: true},
		{name: "root is a file", entries: []entry{{name: ".", body: "x"}}, fails: true},
		{name: "root is a link", entries: []entry{sym("./", "/")}, fails: true},
		{
			name: "long names", entries: []entry{{name: strings.Repeat(strings.Repeat("n", 200)+"/", 10) + "f", body: "x"}},
			want: map[string]string{strings.Repeat(strings.Repeat("n", 200)+"/", 10) + "f": "file x"},
		},
		{name: "name too long", entries: []entry{{name: strings.Repeat("n", 5000), body: "x"}}, fails: true},
		{name: "component too long", entries: []entry{{name: strings.Repeat("n", 300), body: "x"}}, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := t.TempDir()
			root := filepath.Join(host, "deep", "root")
			if err := os.MkdirAll(root, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(host, "victim"), []byte("victim"), 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range c.entries {
				c.entries[i].link = strings.ReplaceAll(c.entries[i].link, "HOST", host)
			}
			a := archive(t, c.entries...)
			res, err := Extract(context.Background(), bytes.NewReader(a), openDir(t, root), Options{})
			if (err != nil) != c.fails {
				t.Fatalf("error %v", err)
			}
			if err == nil && res.NeedBase != c.needs {
				t.Errorf("needs base: %v", res.NeedBase)
			}
			got := listing(t, root)
			for name, want := range c.want {
				if got[name] != want {
					t.Errorf("%s: %q, want %q", name, got[name], want)
				}
			}
			if b, err := os.ReadFile(filepath.Join(host, "victim")); err != nil || string(b) != "victim" {
				t.Fatalf("outside was touched: %q, %v", b, err)
			}
			if fi, err := os.Lstat(filepath.Join(host, "victim")); err != nil || fi.Mode().Perm() != 0o600 {
				t.Fatalf("outside was touched: %v, %v", fi, err)
			}
			outside, err := os.ReadDir(host)
			if err != nil || len(outside) != 2 {
				t.Fatalf("outside was touched: %v", outside)
			}
			if !c.fails && res.DiffID != digest.FromBytes(a) {
				t.Errorf("digest %s", res.DiffID)
			}
		})
	}
}

func TestAttributes(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	fscap := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	a := archive(t,
		entry{name: "d", typ: tar.TypeDir, mode: 0o2750, uid: 12},
		entry{name: "d/su", body: "x", mode: 0o4755, uid: 4294967294 - 1},
		entry{name: "d/cap", body: "x", mode: 0o755, pax: map[string]string{"SCHILY.xattr.security.capability": fscap, "SCHILY.xattr.user.note": "n"}},
	)
	if _, err := Extract(context.Background(), bytes.NewReader(a), openDir(t, root), Options{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(root, "d"), &st); err != nil || st.Mode&0o7777 != 0o2750 || st.Uid != 12 || st.Mtim.Sec != 1600000000 {
		t.Errorf("directory: %+v, %v", st, err)
	}
	if err := unix.Lstat(filepath.Join(root, "d/su"), &st); err != nil || st.Mode&0o7777 != 0o4755 || st.Uid != 4294967293 || st.Mtim.Sec != 1600000000 {
		t.Errorf("file: %+v, %v", st, err)
	}
	b := make([]byte, 64)
	if n, err := unix.Lgetxattr(filepath.Join(root, "d/cap"), "security.capability", b); err != nil || string(b[:n]) != fscap {
		t.Errorf("capability: %x, %v", b[:max(n, 0)], err)
	}
	if n, err := unix.Lgetxattr(filepath.Join(root, "d/cap"), "user.note", b); err == nil && string(b[:n]) != "n" {
		t.Errorf("attribute: %q", b[:n])
	}
}

func TestBase(t *testing.T) {
	needRoot(t)
	lower, upper := t.TempDir(), t.TempDir()
	base := archive(t,
		entry{name: "usr/lib/", typ: tar.TypeDir, mode: 0o711, uid: 7}, entry{name: "usr/lib/f", body: "lower", mode: 0o640, uid: 5},
		entry{name: "lib", typ: tar.TypeSymlink, link: "usr/lib"}, entry{name: "tmp", typ: tar.TypeDir, mode: 0o1777})
	lfd := openDir(t, lower)
	if _, err := Extract(context.Background(), bytes.NewReader(base), lfd, Options{KnowBase: true}); err != nil {
		t.Fatal(err)
	}
	top := archive(t, entry{name: "lib/g", body: "new"}, entry{name: "tmp/t", body: "t"}, entry{name: "h", typ: tar.TypeLink, link: "lib/f"})
	ufd := openDir(t, upper)
	res, err := Extract(context.Background(), bytes.NewReader(top), ufd, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !res.NeedBase {
		t.Error("a link to a lower file needs the base")
	}
	if redo, err := Complete(ufd, res.Implicit, []int{lfd}); err != nil || !redo {
		t.Errorf("a link in the base where the layer implies a directory: redo %v, %v", redo, err)
	}
	upper = t.TempDir()
	ufd = openDir(t, upper)
	res, err = Extract(context.Background(), bytes.NewReader(top), ufd, Options{Base: []int{lfd}, KnowBase: true})
	if err != nil {
		t.Fatal(err)
	}
	if redo, err := Complete(ufd, res.Implicit, []int{lfd}); err != nil || redo {
		t.Fatalf("redo %v, %v", redo, err)
	}
	got := listing(t, upper)
	for name, want := range map[string]string{"usr/lib/g": "file new", "usr/lib/f": "file lower", "h": "file lower", "usr/lib": "dir 711", "lib": ""} {
		t.Run(name, func(t *testing.T) {
			if got[name] != want {
				t.Errorf("%s: %q, want %q", name, got[name], want)
			}
		})
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Lstat(filepath.Join(upper, "h"), &a), unix.Lstat(filepath.Join(upper, "usr/lib/f"), &b)); err != nil || a.Ino != b.Ino || a.Uid != 5 || a.Mode&0o7777 != 0o640 {
		t.Errorf("copied file %+v, %v", a, err)
	}
	if err := unix.Lstat(filepath.Join(upper, "tmp"), &a); err != nil || a.Mode&0o7777 != 0o1777 {
		t.Errorf("tmp %o, %v", a.Mode, err)
	}
}

func TestLimits(t *testing.T) {
	needRoot(t)
	many := archive(t, entry{name: "a"}, entry{name: "b"}, entry{name: "c"})
	_, err := Extract(context.Background(), bytes.NewReader(many), openDir(t, t.TempDir()), Options{Limits: Limits{Entries: 2}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("too many entries: %v", err)
	}
	big := archive(t, entry{name: "a", body: strings.Repeat("x", 1000)})
	_, err = Extract(context.Background(), bytes.NewReader(big), openDir(t, t.TempDir()), Options{Limits: Limits{Bytes: 999}})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("too many bytes: %v", err)
	}
	for _, cut := range []int{1, 100, 512, 700, 1023} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			_, err = Extract(context.Background(), bytes.NewReader(big[:cut]), openDir(t, t.TempDir()), Options{})
			if cut > 512 && !errdefs.IsInvalidArgument(err) {
				t.Errorf("cut at %d: %v", cut, err)
			}
		})
	}
}

// rawMember writes a member whose header is made by hand: the archive writer makes no
// sparse files.
func rawMember(name string, typ byte, body string) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00", len(body)))
	copy(h[148:], "        ")
	h[156] = typ
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return slices.Concat(h, []byte(body), make([]byte, (512-len(body)%512)%512))
}

func paxRecord(k, v string) string {
	n := len(k) + len(v) + 3
	for len(strconv.Itoa(n))+len(k)+len(v)+3 != n {
		n = len(strconv.Itoa(n)) + len(k) + len(v) + 3
	}
	return fmt.Sprintf("%d %s=%s\n", n, k, v)
}

func TestSparse(t *testing.T) {
	needRoot(t)
	sparse := func(size string) []byte {
		// GNU format 1.0: the map of the file's parts stands before its data.
		m := "1\n1048576\n4\n"
		a := rawMember("pax", 'x', paxRecord("GNU.sparse.major", "1")+paxRecord("GNU.sparse.minor", "0")+
			paxRecord("GNU.sparse.name", "f")+paxRecord("GNU.sparse.realsize", size))
		a = append(a, rawMember("GNUSparseFile.0/f", '0', m+strings.Repeat("\x00", 512-len(m))+"data")...)
		return append(a, make([]byte, 1024)...)
	}
	root := t.TempDir()
	if _, err := Extract(context.Background(), bytes.NewReader(sparse("400000000")), openDir(t, root), Options{}); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(root, "f"), &st); err != nil || st.Size != 400000000 || st.Blocks > 4096 {
		t.Errorf("sparse file: size %d, blocks %d, %v", st.Size, st.Blocks, err)
	}
	_, err := Extract(context.Background(), bytes.NewReader(sparse("4000000000000000")), openDir(t, t.TempDir()), Options{})
	if !errdefs.IsInvalidArgument(err) {
		t.Errorf("a file larger than any disk: %v", err)
	}
}

func TestDecompress(t *testing.T) {
	plain := make([]byte, 3<<20+17)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(plain[:1<<20])
	var g, z bytes.Buffer
	gw := gzip.NewWriter(&g)
	_, _ = gw.Write(plain)
	_ = gw.Close()
	zw, _ := zstd.NewWriter(&z)
	_, _ = zw.Write(plain)
	_ = zw.Close()
	for name, packed := range map[string][]byte{"plain": plain, "gzip": g.Bytes(), "zstd": z.Bytes()} {
		t.Run(name, func(t *testing.T) {
			d, err := Decompress(bytes.NewReader(packed))
			if err != nil {
				t.Fatal(name, err)
			}
			got, err := io.ReadAll(d)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
			_ = d.Close()
			if name == "plain" {
				return
			}
			d, err = Decompress(bytes.NewReader(packed[:len(packed)/2]))
			if err != nil {
				t.Fatal(name, err)
			}
			if _, err = io.ReadAll(d); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s cut off: %v", name, err)
			}
			_ = d.Close()
			d, _ = Decompress(bytes.NewReader(packed))
			_ = d.Close() // unread: must not hang
		})
	}
}

// FuzzExtract looks for archives that reach outside or crash the extractor.
func FuzzExtract(f *testing.F) {
	needRoot(f)
	f.Add(archive(f, entry{name: "a/b", body: "x"}, entry{name: "l", typ: tar.TypeSymlink, link: "/"}, entry{name: "l/x", body: "y"}))
	f.Add(archive(f, entry{name: ".wh.a"}, entry{name: "a", typ: tar.TypeDir}, entry{name: "a/.wh..wh..opq"}))
	f.Add(archive(f, entry{name: "f"}, entry{name: "h", typ: tar.TypeLink, link: "f"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		host := t.TempDir()
		root := filepath.Join(host, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		res, err := Extract(context.Background(), bytes.NewReader(data), fd, Options{Limits: Limits{Entries: 100, Bytes: 1 << 20}})
		if err == nil && res.DiffID != digest.FromBytes(data) {
			t.Fatal("wrong digest")
		}
		if e, _ := os.ReadDir(host); len(e) != 1 {
			t.Fatalf("outside was touched: %v", e)
		}
	})
}
