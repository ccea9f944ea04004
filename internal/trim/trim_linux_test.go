package trim

import (
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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

func TestTrimmer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trims, texts, bytes := 0, 0, uint64(10<<20)
		tr := newTrimmer(func() { trims++; bytes = 10 << 20 }, func() { texts++ }, func() uint64 { return bytes })
		defer tr.Stop()
		// after waits, and checks how often was trimmed by then.
		after := func(d time.Duration, want int, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if trims != want {
				t.Fatalf("%s: trimmed %d times, want %d", what, trims, want)
			}
		}
		after(Quiet-1, 0, "before the start was quiet for long")
		after(1, 1, "after the start")
		after(time.Hour, 1, "nothing happened")

		bytes += More - 1
		tr.Touch()
		after(Soon, 1, "a little more is kept for a while")
		if texts != 1 {
			t.Errorf("text given back %d times", texts)
		}
		after(Quiet-Soon-1, 1, "not quiet for long")
		after(1, 2, "quiet for long")

		bytes += More
		tr.Touch()
		after(Soon-1, 2, "not quiet at all")
		tr.Touch()
		after(Soon-1, 2, "busy again")
		after(1, 3, "much is given back soon")

		tr.Touch()
		tr.Stop()
		after(time.Hour, 3, "stopped")
	})
}

func TestHeld(t *testing.T) {
	before := held()
	b := make([]byte, 64<<20)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	if n := held(); n < before+48<<20 {
		t.Errorf("64 MiB more and held went from %d to %d", before, n)
	}
	runtime.KeepAlive(b)
}
