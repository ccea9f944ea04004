// Package drivertest is the suite that every storage driver passes. A driver's own test calls
// Run; drivers differ by their Description only.
package drivertest

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/unpack"
	"golang.org/x/sys/unix"
)

// Run runs the suite with drivers that open opens, each on data-roots of its own.
func Run(t *testing.T, open driver.Open) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: it makes devices, owners and trusted attributes")
	}
	t.Run("Describe", func(t *testing.T) { describe(t, open) })
	t.Run("Trees", func(t *testing.T) { trees(t, open) })
	t.Run("Prepare", func(t *testing.T) { prepare(t, open) })
	t.Run("LongChain", func(t *testing.T) { longChain(t, open) })
	t.Run("DeepTree", func(t *testing.T) { deepTree(t, open) })
	t.Run("Usage", func(t *testing.T) { usage(t, open) })
	t.Run("RemovalOrder", func(t *testing.T) { removalOrder(t, open) })
	t.Run("Containers", func(t *testing.T) { containers(t, open) })
	t.Run("ContainersApart", func(t *testing.T) { apart(t, open) })
	t.Run("View", func(t *testing.T) { view(t, open) })
	t.Run("Crash", func(t *testing.T) { crash(t, open) })
	t.Run("Foreign", func(t *testing.T) { foreign(t, open) })
}

// bench is an open driver below a data-root.
type bench struct {
	t    *testing.T
	root string
	open driver.Open
	driver.Driver
}

func newBench(t *testing.T, open driver.Open) *bench {
	t.Helper()
	b := &bench{t: t, root: t.TempDir(), open: open}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bench) start() {
	b.t.Helper()
	d, err := b.open(b.root)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Driver = d
}

func (b *bench) stop() {
	b.t.Helper()
	if b.Driver == nil {
		return
	}
	if err := b.Close(); err != nil {
		b.t.Error(err)
	}
	b.Driver = nil
}

func (b *bench) restart() {
	b.t.Helper()
	b.stop()
	b.start()
}

func (b *bench) ctx() context.Context { return b.t.Context() }

// entry is one of a layer's archive.
type entry struct {
	name, body, link string
	typ              byte
	mode             int64
	uid              int
	major, minor     int64
	xattrs           map[string]string
}

func (b *bench) archive(entries []entry) []byte {
	b.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{
			Name: e.name, Typeflag: e.typ, Linkname: e.link, Size: int64(len(e.body)), Mode: e.mode, Uid: e.uid, ModTime: modTime(),
			Devmajor: e.major, Devminor: e.minor, Format: tar.FormatPAX,
		}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		for k, v := range e.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		if err := w.WriteHeader(h); err != nil {
			b.t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.body)); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.t.Fatal(err)
	}
	return buf.Bytes()
}

// prepare makes an active snapshot of a layer under key, without a parent, and returns its directory.
func (b *bench) prepare(key string) string {
	b.t.Helper()
	mounts, err := b.Snapshots().Prepare(b.ctx(), key, "")
	if err != nil {
		b.t.Fatal(err)
	}
	if len(mounts) != 1 || mounts[0].Type != "bind" {
		b.t.Fatalf("a layer without parent is no directory: %+v", mounts)
	}
	return mounts[0].Source
}

// fill unpacks an archive as pulling does.
func (b *bench) fill(dir string, lower []string, archive []byte) {
	b.t.Helper()
	at := b.openDir(dir)
	defer unix.Close(at)
	var base []int
	for _, l := range lower {
		fd := b.openDir(l)
		defer unix.Close(fd)
		base = append(base, fd)
	}
	r, err := unpack.Extract(b.ctx(), bytes.NewReader(archive), at, unpack.Options{Base: base, KnowBase: true})
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := unpack.Complete(at, r.Implicit, base); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) openDir(name string) int {
	b.t.Helper()
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	return fd
}

// layer makes a committed layer above parent ("" for none).
func (b *bench) layer(name, parent string, entries ...entry) {
	b.t.Helper()
	dir := b.prepare("active-" + name)
	b.fill(dir, b.lower(parent), b.archive(entries))
	b.commit(name, parent)
}

func (b *bench) commit(name, parent string) {
	b.t.Helper()
	var opts []snapshots.Opt
	if parent != "" {
		opts = append(opts, snapshots.WithParent(parent))
	}
	if err := b.Snapshots().Commit(b.ctx(), name, "active-"+name, opts...); err != nil {
		b.t.Fatal(err)
	}
}

// lower is a chain's directories, as its description tells to find them.
func (b *bench) lower(top string) []string {
	b.t.Helper()
	var dirs []string
	d := b.Describe()
	for top != "" {
		info, err := b.Snapshots().Stat(b.ctx(), top)
		if err != nil {
			b.t.Fatal(err)
		}
		dir := info.Labels[d.DirLabel]
		if !filepath.IsAbs(dir) {
			b.t.Fatalf("layer %s has no directory: %v", top, info.Labels)
		}
		dirs = append(dirs, dir)
		if !d.Shares {
			break
		}
		top = info.Parent
	}
	return dirs
}

// container makes a container above a chain and returns its ID and root: a directory to
// work in, mounted where nobody else sees it.
func (b *bench) container(top string) (cid, root string) {
	b.t.Helper()
	cid = id.New()
	lower := b.lower(top)
	l, err := b.Create(b.ctx(), cid, lower)
	if err != nil {
		b.t.Fatal(err)
	}
	return cid, b.mount(l, lower)
}

// mount makes a root of a layer, as a container's is made.
func (b *bench) mount(l driver.Layer, lower []string) string {
	b.t.Helper()
	if (l.Path == "") == (l.Upper == "") || (l.Upper == "") != (l.Work == "") {
		b.t.Fatalf("a layer is a path, or upper and work: %+v", l)
	}
	if l.Path != "" {
		return l.Path
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		b.t.Fatal(err)
	}
	defer unix.Close(fs)
	if len(lower) == 0 {
		lower = []string{b.t.TempDir()}
	}
	for _, d := range lower {
		b.must(unix.FsconfigSetString(fs, "lowerdir+", d))
	}
	b.must(unix.FsconfigSetString(fs, "upperdir", l.Upper))
	b.must(unix.FsconfigSetString(fs, "workdir", l.Work))
	b.must(unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	b.must(err)
	f := os.NewFile(uintptr(fd), "root")
	b.t.Cleanup(func() { f.Close() })
	return filepath.Join("/proc/self/fd", itoa(fd))
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}
