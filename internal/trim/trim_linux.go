// Package trim gives memory back to the system while a long-lived process has
// nothing to do: the heap's free pages, and the pages of the program itself.
//
// A daemon of 20 MB touches most of its text once, at the start or in a pull, and
// then keeps it mapped for ever although the page cache would bring it back at the
// price of a minor fault. Dropping those mappings costs a few hundred faults at the
// next request (some 0.2 ms) and takes the resident size down to what is in use.
package trim

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// When a process that was busy trims: Quiet after the last thing it did. Soon after it
// already its text goes, and its heap when it holds More bytes than after the last trim:
// that costs a collection of garbage, so a little is not worth it between two requests;
// what a burst of work left behind is.
const (
	Quiet = 5 * time.Second
	Soon  = 500 * time.Millisecond
	More  = 2 << 20
)

// Trimmer trims when the process is quiet after having been busy. It is safe for
// concurrent use.
type Trimmer struct {
	mu    sync.Mutex
	timer *time.Timer
	soon  bool   // the timer is set to Soon after the last touch
	base  uint64 // bytes held after the last trim

	trim, text func()
	held       func() uint64
}

// New returns a trimmer. It begins as touched.
func New() *Trimmer {
	// A failure only means that memory is kept.
	return newTrimmer(func() { _ = Now() }, func() { _ = dropText() }, held)
}

func newTrimmer(trim, text func(), held func() uint64) *Trimmer {
	t := &Trimmer{trim: trim, text: text, held: held}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(Quiet, t.fire)
	return t
}

// Touch tells that the process has something to do.
func (t *Trimmer) Touch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.soon = true
	t.timer.Reset(Soon)
}

// Stop ends the trimming; a later Touch begins it again.
func (t *Trimmer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer.Stop()
}

func (t *Trimmer) fire() {
	if !t.due() {
		t.text()
		return
	}
	t.trim()
	n := t.held()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.base = n
}

// due tells whether it is time for all; if not, the timer is set again.
func (t *Trimmer) due() bool {
	n := t.held()
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.soon || n >= t.base+More {
		return true
	}
	t.soon = false
	t.timer.Reset(Quiet - Soon)
	return false
}

// held is the memory in bytes that Go's runtime has from the system and has not given back.
func held() uint64 {
	m := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(m)
	return m[0].Value.Uint64() - m[1].Value.Uint64()
}

// Now collects garbage, returns free heap pages and unmaps the clean pages of the
// program's own file.
func Now() error {
	runtime.GC() // twice in all, for what pools hold
	debug.FreeOSMemory()
	return dropText()
}

// span is a range of addresses.
type span struct{ from, to uintptr }

// dropText lets go of the pages of the executable that no write has touched: its
// text and its read-only data (madvise(2), MADV_DONTNEED: they come back from the
// file). Writable mappings are left alone, because their changes would be lost.
func dropText() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("own executable: %w", err)
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("own mappings: %w", err)
	}
	defer f.Close()
	spans, err := readOnly(f, exe)
	if err != nil {
		return err
	}
	for _, s := range spans {
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, s.from, s.to-s.from, unix.MADV_DONTNEED); e != 0 {
			err = errors.Join(err, fmt.Errorf("madvise %x-%x: %w", s.from, s.to, e))
		}
	}
	return err
}

// readOnly finds the mappings of file in a maps listing (proc_pid_maps(5)) that are
// private and not writable.
func readOnly(maps io.Reader, file string) ([]span, error) {
	var out []span
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || len(fields[1]) != 4 || fields[1][1] != '-' || fields[1][3] != 'p' {
			continue
		}
		if strings.Join(fields[5:], " ") != file {
			continue
		}
		var s span
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &s.from, &s.to); err != nil || s.to <= s.from {
			return nil, fmt.Errorf("own mappings: range %q", fields[0])
		}
		out = append(out, s)
	}
	return out, lines.Err()
}
