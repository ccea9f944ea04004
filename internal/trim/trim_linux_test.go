package trim

import (
	"reflect"
	"strings"
	"testing"
)

func TestReadOnly(t *testing.T) {
	const maps = `00400000-00c00000 r-xp 00000000 fe:00 1234                             /usr/bin/dockerd
00c00000-01700000 r--p 00800000 fe:00 1234                             /usr/bin/dockerd
01700000-01780000 rw-p 01300000 fe:00 1234                             /usr/bin/dockerd
7f0000000000-7f0000001000 r--s 00000000 fe:00 1234                     /usr/bin/dockerd
7f0000002000-7f0000003000 r-xp 00000000 fe:00 99                       /usr/bin/dockerd.old
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0                        [vdso]
c000000000-c000400000 rw-p 00000000 00:00 0
`
	got, err := readOnly(strings.NewReader(maps), "/usr/bin/dockerd")
	if err != nil {
		t.Fatal(err)
	}
	want := []span{{0x400000, 0xc00000}, {0xc00000, 0x1700000}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// The program goes on after its text was unmapped: every later instruction proves it.
func TestNow(t *testing.T) {
	if err := Now(); err != nil {
		t.Fatal(err)
	}
	if err := Now(); err != nil {
		t.Fatal(err)
	}
}
