package userdb

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Cache keeps what was read of one root for as long as the files and the directories
// that show them are the same: looking at them costs a tenth of reading them. The zero
// value is ready; it is safe for concurrent use.
type Cache struct {
	mu    sync.Mutex
	marks []mark
	files Files
}

// mark tells one state of a file from any other: nobody sets a change time.
type mark struct {
	dev, ino   uint64
	mode       uint32
	size       int64
	ctim, mtim unix.Timespec
}

const (
	// maxKept bounds what is kept of one root.
	maxKept = 32 << 10
	// settled is how old a change must be to be seen by its time alone: the clock of
	// change times goes in ticks.
	settled = time.Second
)

// Read is as the function Read.
func (c *Cache) Read(r Root) (Files, error) { return c.read(r, time.Now()) }

func (c *Cache) read(r Root, now time.Time) (Files, error) {
	marks := r.marks(now)
	c.mu.Lock()
	if marks != nil && slices.Equal(marks, c.marks) {
		defer c.mu.Unlock()
		return c.files, nil
	}
	c.mu.Unlock()
	// What changes from here on is in the files perhaps, but not in the marks.
	files, err := Read(r)
	if err != nil || marks == nil || len(files.Passwd)+len(files.Group) > maxKept {
		return files, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.marks, c.files = marks, files
	return files, nil
}

// marks are those of all that decides what the files are; nil when that is not to be
// told from them: with symbolic links, and right after a change.
func (r Root) marks(now time.Time) []mark {
	out := make([]mark, 0, 3*len(r))
	for _, layer := range r {
		for _, name := range [...]string{"/etc", "/etc/passwd", "/etc/group"} {
			var st unix.Stat_t
			switch err := unix.Lstat(layer+name, &st); {
			case err == unix.ENOENT || err == unix.ENOTDIR:
				out = append(out, mark{})
				continue
			case err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK:
				return nil
			}
			if now.Sub(time.Unix(st.Ctim.Unix())) < settled {
				return nil
			}
			out = append(out, mark{st.Dev, st.Ino, st.Mode, st.Size, st.Ctim, st.Mtim})
		}
	}
	return out
}
