package sysprog

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// homeOf reads a whole passwd file as a program does.
func homeOf(file []byte, uid uint32) (string, syscall.Errno) {
	var to HomeText
	w := passwd{uid: uint64(uid)}
	for _, c := range append(bytes.Clone(file), '\n') {
		if done, e := w.add(c, &to); done || e != 0 {
			if e != 0 {
				return "", e
			}
			break
		}
	}
	return string(to[len("HOME=") : len("HOME=")+w.length]), 0
}

// homeIn is the rule, written plainly: the sixth field of the first line whose third is
// the number.
func homeIn(file []byte, uid uint32) string {
	for line := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 6 {
			continue
		}
		if id, err := strconv.ParseUint(f[2], 10, 32); err == nil && uint32(id) == uid {
			return f[5]
		}
	}
	return ""
}

func TestHomeOf(t *testing.T) {
	const file = "root:x:0:0:root:/root:/bin/sh\nbad:x:5\n:::::\nx:x:7a:1::/a:\nx:x:4294967303:1::/b:\nx:x:18446744073709551623:0::/c:\nx:x:07:1::/d\ny:x:7:1::/e:\nempty:x:8:1:::/bin/sh\nempty:x:8:1::/late:\nlast:x:9:1::/end"
	for uid, want := range map[uint32]string{0: "/root", 5: "", 7: "/d", 8: "", 9: "/end", 1: ""} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			if got, e := homeOf([]byte(file), uid); got != want || e != 0 || want != homeIn([]byte(file), uid) {
				t.Errorf("%d: %q %v, want %q", uid, got, e, want)
			}
		})
	}
	long := "x:x:1:1::" + strings.Repeat("a", maxHome)
	if got, e := homeOf([]byte(long), 1); e != 0 || len(got) != maxHome {
		t.Errorf("%q %v", got, e)
	}
	if _, e := homeOf([]byte(long+"a"), 1); e != unix.ENAMETOOLONG {
		t.Errorf("too long: %v", e)
	}
	if _, e := homeOf([]byte("x:x:1:1::/a\x00b:\n"), 1); e != unix.EINVAL {
		t.Errorf("zero byte: %v", e)
	}
}

func FuzzHomeOf(f *testing.F) {
	f.Add([]byte("root:x:0:0:root:/root:/bin/sh\na:b:10:c:d:e\n"), uint32(10))
	f.Add([]byte("::4294967296::::\n::4294967295:::x"), uint32(1<<32-1))
	f.Fuzz(func(t *testing.T, file []byte, uid uint32) {
		got, e := homeOf(file, uid)
		want := homeIn(file, uid)
		if e != 0 {
			if len(want) <= maxHome && !strings.Contains(want, "\x00") {
				t.Errorf("%v for %q", e, want)
			}
			return
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}
