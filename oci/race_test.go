package oci_test

import (
	"os"
	"path/filepath"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMountRace: somebody who may write into the root (another container with the
// same volume) exchanges a directory and a link to the host while mounts are made
// below it. Nothing may ever appear outside (CVE-2021-30465, CVE-2024-45310).
func TestMountRace(t *testing.T) { bothWays(t, testMountRace) }

func testMountRace(t *testing.T, fresh bool) {
	root := newRootfs(t)
	outside := t.TempDir()
	dir, link := filepath.Join(root, "swap"), filepath.Join(root, "swap.link")
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Symlink(outside, link))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tmp := dir + ".tmp"
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(dir, tmp)
			_ = os.Rename(link, dir)
			_ = os.Rename(dir, link)
			_ = os.Rename(tmp, dir)
		}
	})
	n := 60
	if testing.Short() {
		n = 10
	}
	ok := 0
	for range n {
		b := newBoxBy(fresh, root, "sh", "-c", "test -e /swap/deep/host && echo leak")
		b.opts.Spec.Mounts = append(b.opts.Spec.Mounts,
			specs.Mount{Destination: "/swap/deep/er", Type: "tmpfs", Source: "tmpfs"},
			specs.Mount{Destination: "/swap/file", Type: "bind", Source: "/etc/hostname", Options: []string{"bind"}})
		out, _, err := b.tryRun(t)
		if err == nil {
			ok++
		}
		if out != "" {
			t.Fatalf("%q", out)
		}
	}
	close(stop)
	wg.Wait()
	if e, _ := os.ReadDir(outside); len(e) != 0 {
		t.Fatalf("made outside of the root: %v", e)
	}
	t.Logf("%d of %d started", ok, n)
}
