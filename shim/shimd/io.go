package shimd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// chunk is the most that one read takes. Chunks come from a pool and are taken only
// when there is something to read, so an idle container holds none.
const chunk = 64 << 10

type buffer [chunk]byte

// chunks is a cache without meaning.
var chunks = sync.Pool{New: func() any { return new(buffer) }}

// source is a descriptor to read from with pooled buffers.
type source struct {
	file *os.File
	raw  syscall.RawConn
}

func newSource(f *os.File) (*source, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return &source{file: f, raw: raw}, nil
}

// reader holds the state of one read loop, so that reads allocate nothing.
type reader struct {
	src *source
	max int
	buf *buffer
	n   int
	err error
	try func(uintptr) bool
}

func newReader(src *source) *reader {
	r := &reader{src: src, max: chunk}
	r.try = func(fd uintptr) bool { return r.read(int(fd)) }
	return r
}

func (r *reader) read(fd int) bool {
	r.buf = chunks.Get().(*buffer)
	for {
		r.n, r.err = unix.Read(fd, r.buf[:r.max])
		if !errors.Is(r.err, unix.EINTR) {
			break
		}
	}
	if r.n > 0 {
		return true
	}
	chunks.Put(r.buf)
	r.buf = nil
	return !errors.Is(r.err, unix.EAGAIN)
}

// next waits for data. The bytes are valid until release. io.EOF is the end, for a
// terminal too, whose end is EIO.
func (r *reader) next() ([]byte, error) {
	if err := r.src.raw.Read(r.try); err != nil {
		return nil, err
	}
	return r.result()
}

// poll is next without waiting: no data is io.ErrNoProgress.
func (r *reader) poll() ([]byte, error) {
	if err := r.src.raw.Control(func(fd uintptr) { r.try(fd) }); err != nil {
		return nil, err
	}
	if r.buf == nil && errors.Is(r.err, unix.EAGAIN) {
		return nil, io.ErrNoProgress
	}
	return r.result()
}

func (r *reader) result() ([]byte, error) {
	switch {
	case r.buf != nil:
		return r.buf[:r.n], nil
	case r.err == nil || errors.Is(r.err, unix.EIO):
		return nil, io.EOF
	}
	return nil, r.err
}

func (r *reader) release() {
	if r.buf != nil {
		chunks.Put(r.buf)
		r.buf = nil
	}
}

// own makes fd, which it takes over, a file in the poller.
func own(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// pipe makes a pipe of which one end is ours, in the poller, and the other the
// process's, blocking. size 0 leaves the kernel's.
func pipe(name string, oursReads bool, size int) (ours, theirs *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if size > 0 {
		// Past the user's limit the kernel says no; then it stays small.
		_, _ = unix.FcntlInt(uintptr(p[0]), unix.F_SETPIPE_SZ, size)
	}
	o, t := p[1], p[0]
	if oursReads {
		o, t = p[0], p[1]
	}
	if ours, err = own(o, name); err != nil {
		unix.Close(t)
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(t), name), nil
}

// chownTo gives a pipe's end to the process's user, so that it may open
// /dev/stdout. uid counts in the container; maps are the spec's, if any.
func chownTo(f *os.File, uid uint32, maps []specs.LinuxIDMapping) {
	host := int64(uid)
	if len(maps) > 0 {
		host = -1
		for _, m := range maps {
			if uid >= m.ContainerID && uid-m.ContainerID < m.Size {
				host = int64(m.HostID) + int64(uid-m.ContainerID)
			}
		}
	}
	if host > 0 {
		_ = f.Chown(int(host), -1)
	}
}

// dup duplicates a file's descriptor without touching its mode.
func dup(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, derr := -1, error(nil)
	if err = raw.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err == nil {
		err = derr
	}
	return fd, err
}
