package ociinit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestResolutionRace: somebody exchanges a directory, a link to the host and a link
// to the host's parent, while mount targets are opened and made below it. What is
// opened is in the root, always, and nothing appears outside (CVE-2021-30465,
// CVE-2024-45310, CVE-2025-31133).
func TestResolutionRace(t *testing.T) {
	base := t.TempDir()
	dir, outside := filepath.Join(base, "root"), filepath.Join(base, "outside")
	for _, d := range []string{dir, outside, filepath.Join(dir, "swap")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"abs": outside, "rel": "../outside"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			for _, link := range []string{"abs", "rel"} {
				select {
				case <-stop:
					return
				default:
				}
				for range 2 { // there and back
					_ = unix.Renameat2(fd, "swap", fd, link, unix.RENAME_EXCHANGE)
				}
			}
		}
	})
	tries := 10_000
	if testing.Short() {
		tries = 500
	}
	r := root{fd}
	opened := 0
	for i := range tries {
		for _, f := range []func() (int, error){
			func() (int, error) { return r.dir(fmt.Sprintf("/swap/d%d/deep", i%50), 0) },
			func() (int, error) { return r.file(fmt.Sprintf("/swap/f%d", i%50), 0) },
			func() (int, error) { return r.dir("/swap/plain", unix.RESOLVE_NO_SYMLINKS) },
		} {
			got, err := f()
			if err != nil {
				continue
			}
			opened++
			at, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", got))
			unix.Close(got)
			if err != nil || !strings.HasPrefix(at, dir+"/") {
				t.Fatalf("try %d: opened %q: %v", i, at, err)
			}
		}
	}
	close(stop)
	wg.Wait()
	if e, _ := os.ReadDir(outside); len(e) != 0 {
		t.Fatalf("made outside of the root: %v", e)
	}
	if opened == 0 {
		t.Error("nothing was ever opened")
	}
	t.Logf("%d of %d opened", opened, 3*tries)
}
