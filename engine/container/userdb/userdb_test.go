package userdb

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var sample = Files{
	Passwd: []byte("root:x:0:0:root:/root:/bin/sh\n# no\n1000:x:0:0:evil:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbig:x:4294967295:1::/:\nshort:x:7:8\n"),
	Group:  []byte("root:x:0:\nwheel:x:10:root,ann\ndisk:x:6:\nannx:x:77:annx\nann:x:1000:\n"),
}

func TestResolve(t *testing.T) {
	for _, c := range []struct {
		spec string
		more []string
		want User
		err  string
	}{
		{spec: "", want: User{0, 0, []uint32{10}, "/root"}},
		{spec: "ann", want: User{1000, 1000, []uint32{10}, "/home/ann"}},
		{spec: "1000", want: User{1000, 1000, []uint32{10}, "/home/ann"}}, // not the user called 1000
		{spec: "12:34", want: User{12, 34, nil, "/"}},
		{spec: "12", want: User{12, 0, nil, "/"}},
		{spec: "ann:disk", want: User{1000, 6, nil, "/home/ann"}},
		{spec: "ann", more: []string{"disk", "99"}, want: User{1000, 1000, []uint32{10, 6, 99}, "/home/ann"}},
		{spec: "foo", err: "unable to find user foo: no matching entries in passwd file"},
		{spec: "ann:foo", err: "unable to find group foo: no matching entries in group file"},
		{spec: "4294967295", err: "range"},
		{spec: "18446744073709551616", err: "range"},
		{spec: "-1", err: "range"},
		{spec: "big", err: "no matching entries"},
		{spec: "short", err: "no matching entries"},
	} {
		t.Run(c.spec+" "+c.err, func(t *testing.T) {
			got, err := sample.Resolve(c.spec, c.more)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%q: error %v, want %q", c.spec, err, c.err)
				}
				return
			}
			if err != nil || got.UID != c.want.UID || got.GID != c.want.GID || got.Home != c.want.Home || !slices.Equal(got.Groups, c.want.Groups) {
				t.Errorf("%q: %+v %v, want %+v", c.spec, got, err, c.want)
			}
		})
	}
}

func put(t *testing.T, p, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestRoot(t *testing.T) {
	dir := t.TempDir()
	up, mid, low := filepath.Join(dir, "up"), filepath.Join(dir, "mid"), filepath.Join(dir, "low")
	outside := filepath.Join(dir, "secret")
	put(t, outside, "outside")
	put(t, low+"/etc/passwd", "low")
	put(t, low+"/etc/group", "lowgroup")
	put(t, low+"/real/f", "real")
	put(t, mid+"/etc/passwd", "mid")
	put(t, up+"/x/y", "1")
	for _, l := range [][2]string{
		{"/real", up + "/abs"},
		{"../../../../etc/passwd", up + "/climb"},
		{outside, up + "/out"},
		{"loop", up + "/loop"},
		{"f", low + "/real/g"},
	} {
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	r := Root{up, mid, low}
	for name, want := range map[string]string{
		"/etc/passwd": "mid", "etc/group": "lowgroup", "/abs/f": "real", "/climb": "mid", "/abs/g": "real",
		"/abs/../etc/passwd": "mid",
	} {
		t.Run(name, func(t *testing.T) {
			f, err := r.Open(name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			b, _ := io.ReadAll(f)
			f.Close()
			if string(b) != want {
				t.Errorf("%s: %q, want %q", name, b, want)
			}
		})
	}
	for _, name := range []string{"/out", "/x", "/none", "/x/y/z", "/"} {
		t.Run(name, func(t *testing.T) {
			if f, err := r.Open(name); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v %v", name, f, err)
			}
		})
	}
	if _, err := r.Open("/loop"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("whiteouts need root")
	}
	if err := unix.Mknod(up+"/real", unix.S_IFCHR, 0); err != nil {
		t.Skip(err)
	}
	if _, err := r.Open("/real/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a whiteout: %v", err)
	}
}

func FuzzResolve(f *testing.F) {
	f.Add(sample.Passwd, sample.Group, "ann:wheel")
	f.Add([]byte("a:::::\n::"), []byte(":::"), ":")
	f.Fuzz(func(t *testing.T, passwd, group []byte, spec string) {
		u, err := Files{passwd, group}.Resolve(spec, nil)
		if err == nil && len(u.Groups) > maxGroups {
			t.Fatal("too many groups")
		}
	})
}
