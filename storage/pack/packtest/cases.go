package packtest

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// old is the time of everything in the older tree: whole seconds, as images have them.
func old() time.Time { return time.Unix(1_600_000_000, 0) }

func write(t *testing.T, p, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.WriteFile(p, []byte(text), 0o600), os.Chmod(p, mode), os.Chtimes(p, old(), old()))
}

// base fills the older tree.
func base(t *testing.T, dir string) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Chmod(dir, 0o755), os.MkdirAll(at("etc/conf.d"), 0o755), os.MkdirAll(at("usr/bin"), 0o755),
		os.Mkdir(at("var"), 0o711), os.MkdirAll(at("srv/a/b"), 0o755))
	write(t, at("etc/passwd"), "root:x:0:0\n", 0o644)
	write(t, at("etc/conf.d/one"), "1", 0o600)
	write(t, at("etc/conf.d/two"), "2", 0o600)
	write(t, at("usr/bin/prog"), "\x7fELF", 0o4755)
	write(t, at("srv/a/b/deep"), "deep", 0o644)
	write(t, at("srv/a/file"), "file", 0o644)
	write(t, at("linked"), "linked", 0o644)
	must(t, os.Symlink("usr/bin", at("bin")), os.Link(at("linked"), at("linked2")), unix.Mkfifo(at("var/fifo"), 0o640))
	must(t, unix.Mknod(at("var/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	ts := unix.NsecToTimespec(old().UnixNano())
	for _, name := range []string{"bin", "var/fifo", "var/null"} {
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

type testCase struct {
	name   string
	change func(t *testing.T, root string)
	want   []string
}

func cases() []testCase {
	return append(simple(), replaced()...)
}

func simple() []testCase {
	return []testCase{
		{"nothing", func(*testing.T, string) {}, nil},
		{"a file is added", func(t *testing.T, r string) { write(t, r+"/etc/conf.d/new", "new", 0o640) }, []string{
			"C /etc", "C /etc/conf.d", "A /etc/conf.d/new",
		}},
		{"a tree is added", func(t *testing.T, r string) {
			must(t, os.MkdirAll(r+"/opt/x/y", 0o700), os.Lchown(r+"/opt/x", 7, 8), os.Symlink("/nowhere", r+"/opt/x/link"))
			write(t, r+"/opt/x/y/z", "z", 0o644)
		}, []string{"A /opt", "A /opt/x", "A /opt/x/link", "A /opt/x/y", "A /opt/x/y/z"}},
		{"a file is written", func(t *testing.T, r string) { write(t, r+"/etc/passwd", "root:x:0:0:\n", 0o644) }, []string{
			"C /etc", "C /etc/passwd",
		}},
		{"a file is written, its size and time kept", func(t *testing.T, r string) { write(t, r+"/etc/passwd", "toor:x:0:0\n", 0o644) }, []string{
			"C /etc", "C /etc/passwd",
		}},
		{"a file is opened for writing and left as it is", func(t *testing.T, r string) {
			f, err := os.OpenFile(r+"/etc/passwd", os.O_RDWR, 0)
			must(t, err)
			must(t, f.Close())
		}, nil},
		{"mode and owner", func(t *testing.T, r string) {
			must(t, os.Chmod(r+"/etc/conf.d", 0o750), os.Lchown(r+"/etc/conf.d/one", 1, 2))
		}, []string{"C /etc", "C /etc/conf.d", "C /etc/conf.d/one"}},
		{"only a time", func(t *testing.T, r string) {
			must(t, os.Chtimes(r+"/srv/a/file", old().Add(time.Hour), old().Add(time.Hour)))
		}, []string{"C /srv", "C /srv/a", "C /srv/a/file"}},
		{"a directory's time is no change", func(t *testing.T, r string) { must(t, os.Chtimes(r+"/srv/a", time.Now(), time.Now())) }, nil},
		{"a capability", func(t *testing.T, r string) {
			must(t, unix.Setxattr(r+"/usr/bin/prog", "security.capability", capability(), 0), os.Chtimes(r+"/usr/bin/prog", old(), old()))
		}, []string{"C /usr", "C /usr/bin", "C /usr/bin/prog"}},
		{"a file is removed", func(t *testing.T, r string) { must(t, os.Remove(r+"/etc/conf.d/one")) }, []string{
			"C /etc", "C /etc/conf.d", "D /etc/conf.d/one",
		}},
		{"a tree is removed", func(t *testing.T, r string) { must(t, os.RemoveAll(r+"/srv/a")) }, []string{"C /srv", "D /srv/a"}},
		{"made and removed again", func(t *testing.T, r string) {
			write(t, r+"/etc/tmp", "", 0o600)
			must(t, os.Remove(r+"/etc/tmp"))
		}, nil},
		{"devices, fifos, sockets", func(t *testing.T, r string) {
			must(t, unix.Mknod(r+"/var/zero", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), unix.Mkfifo(r+"/var/pipe", 0o600), os.Chmod(r+"/var/fifo", 0o600))
		}, []string{"C /var", "C /var/fifo", "A /var/pipe", "A /var/zero"}},
		{"names that sort beside a directory's", func(t *testing.T, r string) {
			write(t, r+"/etc/conf.d-old", "x", 0o600)
			write(t, r+"/etc/conf.d/x", "x", 0o600)
			write(t, r+"/etc/conf", "x", 0o600)
		}, []string{"C /etc", "A /etc/conf", "C /etc/conf.d", "A /etc/conf.d/x", "A /etc/conf.d-old"}},
		{"hard links", func(t *testing.T, r string) {
			write(t, r+"/var/one", "one", 0o600)
			must(t, os.Link(r+"/var/one", r+"/var/two"), os.Link(r+"/var/one", r+"/etc/three"))
		}, []string{"C /etc", "A /etc/three", "C /var", "A /var/one", "A /var/two"}},
		{"a long name and a deep path", func(t *testing.T, r string) {
			deep := r + "/" + strings.Repeat("d/", 60)
			must(t, os.MkdirAll(deep, 0o755))
			write(t, deep+strings.Repeat("n", 255), "n", 0o600)
		}, deepChanges()},
	}
}

func deepChanges() (list []string) {
	p := ""
	for range 60 {
		p += "/d"
		list = append(list, "A "+p)
	}
	return append(list, "A "+p+"/"+strings.Repeat("n", 255))
}

// replaced are cases in which one kind of file takes the place of another.
func replaced() []testCase {
	return []testCase{
		{"a directory becomes a file", func(t *testing.T, r string) {
			must(t, os.RemoveAll(r+"/srv/a"))
			write(t, r+"/srv/a", "file", 0o644)
		}, []string{"C /srv", "C /srv/a"}},
		{"a file becomes a directory", func(t *testing.T, r string) {
			must(t, os.Remove(r+"/etc/passwd"), os.Mkdir(r+"/etc/passwd", 0o755))
			write(t, r+"/etc/passwd/x", "x", 0o644)
		}, []string{"C /etc", "C /etc/passwd", "A /etc/passwd/x"}},
		{"a directory becomes a symbolic link", func(t *testing.T, r string) {
			must(t, os.RemoveAll(r+"/srv"), os.Symlink("etc", r+"/srv"))
		}, []string{"C /srv"}},
		{"a symbolic link becomes a directory", func(t *testing.T, r string) {
			must(t, os.Remove(r+"/bin"), os.Mkdir(r+"/bin", 0o755))
			write(t, r+"/bin/sh", "sh", 0o755)
		}, []string{"C /bin", "A /bin/sh"}},
		{"a symbolic link leads elsewhere", func(t *testing.T, r string) {
			must(t, os.Remove(r+"/bin"), os.Symlink("usr/lib", r+"/bin"))
		}, []string{"C /bin"}},
		{"a directory is made anew", func(t *testing.T, r string) {
			must(t, os.RemoveAll(r+"/etc/conf.d"), os.Mkdir(r+"/etc/conf.d", 0o755))
			write(t, r+"/etc/conf.d/two", "2", 0o600)
			write(t, r+"/etc/conf.d/zero", "0", 0o600)
		}, []string{"C /etc", "C /etc/conf.d", "D /etc/conf.d/one", "A /etc/conf.d/zero"}},
		{"a tree is made anew", func(t *testing.T, r string) {
			must(t, os.RemoveAll(r+"/srv"), os.MkdirAll(r+"/srv/a/b", 0o755))
			write(t, r+"/srv/a/other", "o", 0o600)
		}, []string{"C /srv", "C /srv/a", "C /srv/a/b", "D /srv/a/b/deep", "D /srv/a/file", "A /srv/a/other"}},
		{"a tree is made anew with other things", func(t *testing.T, r string) {
			must(t, os.RemoveAll(r+"/srv"), os.MkdirAll(r+"/srv/a/b/c", 0o700), os.Chmod(r+"/srv", 0o755))
		}, []string{"C /srv", "C /srv/a", "C /srv/a/b", "A /srv/a/b/c", "D /srv/a/b/deep", "D /srv/a/file"}},
		{"a directory is renamed", func(t *testing.T, r string) {
			rename(t, r+"/srv/a", r+"/srv/z")
		}, []string{"C /srv", "D /srv/a", "A /srv/z", "A /srv/z/b", "A /srv/z/b/deep", "A /srv/z/file"}},
		{"a file is renamed over another", func(t *testing.T, r string) {
			must(t, os.Rename(r+"/etc/conf.d/one", r+"/etc/conf.d/two"))
		}, []string{"C /etc", "C /etc/conf.d", "D /etc/conf.d/one", "C /etc/conf.d/two"}},
	}
}

// rename moves a directory as mv(1) does: where overlayfs refuses (EXDEV), by copying.
func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err == nil {
		return
	}
	must(t, os.CopyFS(to, os.DirFS(from)))
	must(t, filepath.Walk(to, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(p, old(), old())
	}), os.RemoveAll(from))
}

// capability is cap_net_bind_service=ep as the kernel keeps it (revision 2).
func capability() []byte {
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001)
	binary.LittleEndian.PutUint32(b[4:], 1<<10)
	return b
}
