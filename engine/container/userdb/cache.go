package userdb

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sys/unix"
)

const (
	// maxKept bounds what is kept of one root, in bytes, and maxImages of how many images.
	maxKept   = 32 << 10
	maxImages = 64
	// settled is how old a change must be to be seen by its time alone: the clock of
	// change times goes in ticks.
	settled = time.Second
)

// Root is what users of one container are read from.
type Root interface {
	// Image names the layers of the container's image, whose files never change; "" when the
	// container does not stand on them.
	Image() string
	// Changes is the directory that holds what the container has changed above its image, as
	// overlayfs keeps it; the whole root where Image is "".
	Changes() string
	// OpenImage opens the root of the image, Open that of the container as it is now. The caller
	// closes the directory (O_PATH).
	OpenImage(ctx context.Context) (*os.File, error)
	Open(ctx context.Context) (*os.File, error)
}

// Cache reads users of containers and keeps what it read for as long as it is the same, so
// that a start mounts and reads nothing: a container that has no /etc of its own has its image's,
// others' is looked at again when it was changed. Safe for concurrent use.
type Cache struct {
	images *lru.Cache[string, kept]

	mu         sync.Mutex
	containers map[string]kept
}

// kept is what was read of one root.
type kept struct {
	marks  []mark // of a container's
	linked bool   // of an image's; its files are of use to containers that changed nothing
	files  Files
}

// mark tells one state of a file from any other: nobody sets a change time.
type mark struct {
	dev, ino   uint64
	mode       uint32
	size       int64
	ctim, mtim unix.Timespec
}

// NewCache makes an empty cache.
func NewCache() (*Cache, error) {
	images, err := lru.New[string, kept](maxImages)
	return &Cache{images: images, containers: map[string]kept{}}, err
}

// Forget drops what is kept of a container that is removed.
func (c *Cache) Forget(container string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.containers, container)
}

// Read is the files of a container, as Read reads them of r.Open now; errors are r's and the file system's.
func (c *Cache) Read(ctx context.Context, container string, r Root) (Files, error) {
	return c.read(ctx, container, r, time.Now())
}

func (c *Cache) read(ctx context.Context, container string, r Root, now time.Time) (Files, error) {
	own, err := os.OpenFile(r.Changes(), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return Files{}, err
	}
	defer own.Close()
	marks, err := marksOf(own, now)
	if errors.Is(err, errNone) && r.Image() != "" {
		if files, ok, err := c.image(ctx, r, own); ok || err != nil {
			return files, err
		}
	}
	c.mu.Lock()
	k, ok := c.containers[container]
	c.mu.Unlock()
	if ok && marks != nil && slices.Equal(marks, k.marks) {
		return k.files, nil
	}
	// What changes from here on is in the files perhaps, but not in the marks.
	files, linked, err := readOf(ctx, r.Open)
	if err != nil || marks == nil || linked || !files.small() {
		return files, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.containers[container] = kept{marks: marks, files: files}
	return files, nil
}

// image is the files of a container without an /etc of its own; not ok where links lead out of
// the image's /etc, and own has changes which they may lead to.
func (c *Cache) image(ctx context.Context, r Root, own *os.File) (_ Files, ok bool, err error) {
	k, found := c.images.Get(r.Image())
	if !found {
		if k.files, k.linked, err = readOf(ctx, r.OpenImage); err != nil {
			return Files{}, false, err
		}
		if k.files.small() {
			c.images.Add(r.Image(), k)
		}
	}
	return k.files, !k.linked || empty(own), nil
}

func readOf(ctx context.Context, open func(context.Context) (*os.File, error)) (Files, bool, error) {
	root, err := open(ctx)
	if err != nil {
		return Files{}, false, err
	}
	defer root.Close()
	return Read(root)
}

func (f Files) small() bool { return len(f.Passwd)+len(f.Group) <= maxKept }

// empty reports whether a directory has no entries.
func empty(dir *os.File) bool {
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	list, err := f.Readdirnames(1)
	return len(list) == 0 && err != nil // io.EOF
}

// errNone says that a directory has no /etc at all.
var errNone = fs.ErrNotExist

// marksOf are the marks of all in the directory own that decides what the files are, but for what
// is below it in an image; none when that cannot be told from them: with links, and right after a change.
// The error is errNone when nothing is there.
func marksOf(own *os.File, now time.Time) ([]mark, error) {
	fd, err := unix.Openat(int(own.Fd()), "etc", unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	etc := os.NewFile(uintptr(fd), "etc")
	defer etc.Close()
	var marks [3]mark
	for i, name := range [...]string{"", "passwd", "group"} {
		var st unix.Stat_t
		err := unix.Fstatat(int(etc.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH)
		switch {
		case i > 0 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR)):
			continue
		case err != nil:
			return nil, err
		case st.Mode&unix.S_IFMT == unix.S_IFLNK, now.Sub(time.Unix(st.Ctim.Unix())) < settled:
			return nil, nil
		}
		marks[i] = mark{st.Dev, st.Ino, st.Mode, st.Size, st.Ctim, st.Mtim}
	}
	return marks[:], nil
}
