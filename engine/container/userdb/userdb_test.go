package userdb

import (
	"errors"
	"os"
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

func TestRead(t *testing.T) {
	outside := t.TempDir() + "/secret"
	put(t, outside, "outside")
	for _, c := range []struct {
		name   string
		make   func(top string)
		passwd string
		linked bool
		err    error
	}{
		{name: "nothing"},
		{name: "a file", make: func(top string) { put(t, top+"/etc/passwd", "p") }, passwd: "p"},
		{name: "an absolute link", make: func(top string) {
			put(t, top+"/real/f", "p")
			do(t, os.Mkdir(top+"/etc", 0o755))
			do(t, os.Symlink("/real/f", top+"/etc/passwd"))
		}, passwd: "p", linked: true},
		{name: "a link of links", make: func(top string) {
			put(t, top+"/real/f", "p")
			do(t, os.Symlink("f", top+"/real/passwd"))
			do(t, os.Symlink("real", top+"/etc"))
		}, passwd: "p", linked: true},
		{name: "a link that climbs", make: func(top string) {
			put(t, top+"/real/f", "p")
			do(t, os.Mkdir(top+"/etc", 0o755))
			do(t, os.Symlink("../../../../real/f", top+"/etc/passwd"))
		}, passwd: "p", linked: true},
		{name: "a link out of the root", make: func(top string) {
			do(t, os.Mkdir(top+"/etc", 0o755))
			do(t, os.Symlink(outside, top+"/etc/passwd"))
		}, linked: true},
		{name: "a loop", make: func(top string) {
			do(t, os.Mkdir(top+"/etc", 0o755))
			do(t, os.Symlink("passwd", top+"/etc/passwd"))
		}, err: unix.ELOOP},
		{name: "a directory", make: func(top string) { do(t, os.MkdirAll(top+"/etc/passwd", 0o755)) }},
		{name: "a file in the way", make: func(top string) { put(t, top+"/etc", "x") }},
		{name: "a fifo that nobody writes", make: func(top string) {
			do(t, os.Mkdir(top+"/etc", 0o755))
			do(t, unix.Mkfifo(top+"/etc/passwd", 0o644))
		}},
		{name: "too long", make: func(top string) {
			put(t, top+"/etc/passwd", "")
			do(t, os.Truncate(top+"/etc/passwd", 1<<40))
		}, passwd: string(make([]byte, maxFile))},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			put(t, top+"/x", "")
			if c.make != nil {
				c.make(top)
			}
			root, err := os.Open(top)
			do(t, err)
			defer root.Close()
			f, linked, err := Read(root)
			if string(f.Passwd) != c.passwd || len(f.Group) != 0 || linked != c.linked || !errors.Is(err, c.err) {
				t.Errorf("%.20q %v %v, want %.20q %v %v", f.Passwd, linked, err, c.passwd, c.linked, c.err)
			}
		})
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
