package netns

import (
	"os"
	"sync"
	"testing"
)

// TestInsideLeavesTheProcess: while threads are in other namespaces, the process as /proc/self
// shows it is where it was; it would not be if its first thread were among them.
func TestInsideLeavesTheProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	h, err := OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	const path = "/proc/self/ns/net"
	home, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg, in sync.WaitGroup
	// All at once, so that every thread there is gets its turn, the first one too.
	in.Add(32)
	for range 32 {
		wg.Go(func() {
			err := h.Inside(nil, func() error {
				in.Done()
				in.Wait()
				own, err := os.Readlink("/proc/thread-self/ns/net")
				if process, perr := os.Readlink(path); err != nil || perr != nil || own == home || process != home {
					t.Errorf("thread in %s, process in %s, at home %s: %v %v", own, process, home, err, perr)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
