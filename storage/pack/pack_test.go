package pack_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage/pack"
	"golang.org/x/sys/unix"
)

// read lists an archive: a line an entry.
func read(t *testing.T, r io.Reader) (lines []string) {
	t.Helper()
	a := tar.NewReader(r)
	for {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(a)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %s %o", h.Typeflag, h.Name, h.Mode)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if len(body) > 0 {
			line += fmt.Sprintf(" %q", body)
		}
		var keys []string
		for k, v := range h.PAXRecords {
			if key, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				keys = append(keys, fmt.Sprintf(" %s=%x", key, v))
			}
		}
		slices.Sort(keys)
		lines = append(lines, line+strings.Join(keys, ""))
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func sample(t *testing.T) string {
	t.Helper()
	top := t.TempDir()
	do(t, os.Chmod(top, 0o750), os.MkdirAll(top+"/b/c", 0o755), os.WriteFile(top+"/b/file", []byte("text"), 0o644), os.WriteFile(top+"/b/empty", nil, 0o600),
		os.Link(top+"/b/file", top+"/z"), os.Symlink("/etc/passwd", top+"/a"), unix.Mkfifo(top+"/fifo", 0o644), os.Chmod(top+"/b/file", 0o644|os.ModeSetuid))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: top + "/socket", Net: "unix"})
	do(t, err)
	t.Cleanup(func() { l.Close() })
	return top
}

func TestTree(t *testing.T) {
	top := sample(t)
	do(t, unix.Setxattr(top+"/b/file", "user.color", []byte("red"), 0))
	all := []string{
		`2 a 777 -> /etc/passwd`, `5 b/ 755`, `5 b/c/ 755`, `0 b/empty 600`, `0 b/file 4644 "text"`, `6 fifo 644`, `1 z 4644 -> b/file`,
	}
	for name, c := range map[string]struct {
		o    pack.Options
		want []string
	}{
		"plain": {pack.Options{}, all},
		"prefix": {pack.Options{Prefix: "x/y"}, []string{
			`5 x/y/ 750`, `2 x/y/a 777 -> /etc/passwd`, `5 x/y/b/ 755`, `5 x/y/b/c/ 755`, `0 x/y/b/empty 600`,
			`0 x/y/b/file 4644 "text"`, `6 x/y/fifo 644`, `1 x/y/z 4644 -> x/y/b/file`,
		}},
		"skip": {pack.Options{Skip: func(name string) bool { return name == "b" }}, []string{
			`2 a 777 -> /etc/passwd`, `6 fifo 644`, `0 z 4644 "text"`,
		}},
		"attributes": {pack.Options{Xattrs: pack.Portable, Skip: func(name string) bool { return name != "z" }}, []string{
			`0 z 4644 "text" user.color=726564`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			do(t, pack.Tree(t.Context(), &b, open(t, top), c.o))
			if got := read(t, &b); !slices.Equal(got, c.want) {
				t.Errorf("%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// shrinking truncates a file as soon as its header is written.
type shrinking struct {
	io.Writer
	file string
}

func (s *shrinking) Write(p []byte) (int, error) {
	if s.file != "" {
		if err := os.Truncate(s.file, 3); err != nil {
			return 0, err
		}
		s.file = ""
	}
	return s.Writer.Write(p)
}

func TestTreeFileShrinks(t *testing.T) {
	top := t.TempDir()
	do(t, os.WriteFile(top+"/f", bytes.Repeat([]byte("x"), 1<<20), 0o600))
	var b bytes.Buffer
	do(t, pack.Tree(t.Context(), &shrinking{&b, top + "/f"}, open(t, top), pack.Options{}))
	a := tar.NewReader(&b)
	if h, err := a.Next(); err != nil || h.Size != 1<<20 {
		t.Fatal(h, err)
	}
	body, err := io.ReadAll(a)
	if err != nil || len(body) != 1<<20 || !bytes.Equal(body[len(body)-3:], []byte{0, 0, 0}) || body[0] != 'x' {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestTreeErrors(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := pack.Tree(ctx, io.Discard, open(t, t.TempDir()), pack.Options{}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("too deep", func(t *testing.T) {
		top := t.TempDir()
		at := open(t, top)
		var err error
		fd := int(at.Fd())
		name := strings.Repeat("n", 200)
		for range 25 {
			do(t, unix.Mkdirat(fd, name, 0o700))
			if fd, err = unix.Openat(fd, name, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
		}
		if err := pack.Tree(t.Context(), io.Discard, at, pack.Options{}); !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
	})
	t.Run("whiteout in a layer", func(t *testing.T) {
		top := t.TempDir()
		do(t, os.WriteFile(top+"/.wh.other", nil, 0o600))
		if err := pack.Overlay(open(t, top), nil, pack.DiffOptions{}).Layer(t.Context(), io.Discard); !errdefs.IsInvalidArgument(err) {
			t.Error(err)
		}
		if err := pack.Tree(t.Context(), io.Discard, open(t, top), pack.Options{}); err != nil {
			t.Error("an archive that is no layer may hold it:", err)
		}
	})
	t.Run("no descriptor is kept", func(t *testing.T) {
		top := open(t, sample(t))
		before := descriptors(t)
		do(t, pack.Tree(t.Context(), io.Discard, top, pack.Options{}))
		do(t, pack.Compare(top, top, pack.DiffOptions{}).Changes(t.Context(), func(pack.Change) error { return nil }))
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors, %d before", after, before)
		}
	})
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	do(t, err)
	return len(list)
}

// TestTreeRenamer has somebody exchange a directory and a file for symbolic links out of the tree
// all the while: nothing from outside may get into an archive.
func TestTreeRenamer(t *testing.T) {
	outside, top := t.TempDir(), t.TempDir()
	do(t, os.WriteFile(outside+"/secret", []byte("secret"), 0o600), os.Mkdir(top+"/d", 0o755), os.WriteFile(top+"/d/secret", []byte("public"), 0o600),
		os.Symlink(outside, top+"/l"), os.Symlink(outside+"/secret", top+"/m"), os.WriteFile(top+"/f", []byte("public"), 0o600))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, top+"/d", unix.AT_FDCWD, top+"/l", unix.RENAME_EXCHANGE)
				_ = unix.Renameat2(unix.AT_FDCWD, top+"/f", unix.AT_FDCWD, top+"/m", unix.RENAME_EXCHANGE)
			}
		}
	}()
	root := open(t, top)
	for range 10_000 {
		var b bytes.Buffer
		do(t, pack.Tree(t.Context(), &b, root, pack.Options{}))
		for _, line := range read(t, &b) {
			if strings.Contains(line, `"secret"`) {
				t.Fatal(line)
			}
		}
	}
	close(stop)
	<-done
}
