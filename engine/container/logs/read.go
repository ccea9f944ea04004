package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxLine bounds one line of a log file, in bytes: 1 MiB of output, escaped. Longer
// ones are passed over.
const maxLine = 7 << 20

// poll is how often a follower looks by itself, should a notification be lost.
const poll = time.Second

// Options say what to read.
type Options struct {
	Path         string
	Since, Until time.Time // zero: without bound
	Tail         int       // last so many entries; negative: all
	Follow       bool
	// Ended reports, for a follower, that nothing more will be written.
	Ended func() bool
	// Changed returns a channel that is closed when Ended may have changed.
	Changed func() <-chan struct{}
}

// Read hands every entry to emit, oldest first, and calls flush whenever there is
// nothing more for now. It returns when all is read, following ended, or ctx did; with
// the first error of emit or flush. A log that is not there is empty. Lines that are
// none, as a crash leaves them, are passed over.
func Read(ctx context.Context, o Options, emit func(*Message) error, flush func() error) error {
	parts, err := open(o.Path)
	if err != nil {
		return err
	}
	defer func() { closeAll(parts) }()
	if o.Tail >= 0 {
		left, err := skip(parts, o.Tail)
		if err != nil {
			return err
		}
		parts = left
	}
	r := &reader{o: o, emit: emit}
	if o.Follow {
		w := watch(filepath.Dir(o.Path))
		defer w.close()
		defer func() {
			if r.f != nil {
				r.f.Close()
			}
		}()
		return r.follow(ctx, &parts, w, flush)
	}
	for _, p := range parts {
		if err := r.part(ctx, p); err != nil {
			return end(err, flush)
		}
	}
	return flush()
}

// errDone ends reading early, without being an error.
var errDone = errors.New("done")

func end(err error, flush func() error) error {
	if errors.Is(err, errDone) {
		return flush()
	}
	return err
}

type reader struct {
	o    Options
	emit func(*Message) error
	dec  decoder
	buf  []byte // read and not yet handed out
	over bool   // in a line that is too long
	f    *os.File
}

// part reads one file to its end. A last line without newline counts if it is whole.
func (r *reader) part(ctx context.Context, p part) error {
	var src io.Reader = p.f
	if p.gz {
		z, err := unzip(p.f)
		if err != nil {
			return torn(err)
		}
		src = tornReader{z}
	}
	err := r.drain(ctx, src, p.drop)
	if err == nil && len(r.buf) > 0 {
		err = r.line(r.buf)
	}
	r.buf, r.over = r.buf[:0], false
	return err
}

// drain reads src to its end; what is left of a line stays in r.buf.
func (r *reader) drain(ctx context.Context, src io.Reader, drop int) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		have := len(r.buf)
		if cap(r.buf)-have < 32<<10 {
			grown := make([]byte, have, max(2*cap(r.buf), 128<<10))
			copy(grown, r.buf)
			r.buf = grown
		}
		n, rerr := src.Read(r.buf[have:cap(r.buf)])
		r.buf = r.buf[:have+n]
		rest := r.buf
		for {
			i := bytes.IndexByte(rest[max(0, min(have, len(rest))):], '\n')
			if i < 0 {
				break
			}
			i += max(0, min(have, len(rest)))
			line := rest[:i]
			rest = rest[i+1:]
			have = 0
			if r.over {
				r.over = false
				continue
			}
			if drop > 0 {
				drop--
				continue
			}
			if err := r.line(line); err != nil {
				return err
			}
		}
		r.buf = r.buf[:copy(r.buf, rest)]
		if len(r.buf) > maxLine {
			r.buf, r.over = r.buf[:0], true
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
}

// tornReader ends where a compressed file is damaged.
type tornReader struct{ r io.Reader }

// Read implements io.Reader.
func (t tornReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && torn(err) == nil {
		err = io.EOF
	}
	return n, err
}

func (r *reader) line(line []byte) error {
	if len(line) == 0 || len(line) > maxLine {
		return nil
	}
	m, err := r.dec.decode(line)
	if err != nil {
		return nil //nolint:nilerr // what a crash or somebody else left in the file is passed over
	}
	if !r.o.Since.IsZero() && m.Time.Before(r.o.Since) {
		return nil
	}
	if !r.o.Until.IsZero() && m.Time.After(r.o.Until) {
		return errDone
	}
	return r.emit(m)
}

// follow reads what is there and then what comes, through rotations.
func (r *reader) follow(ctx context.Context, parts *[]part, w *watcher, flush func() error) error {
	list := *parts
	for len(list) > 1 {
		p := list[0]
		if err := r.part(ctx, p); err != nil {
			return end(err, flush)
		}
		p.f.Close()
		list = list[1:]
		*parts = list
	}
	if len(list) == 1 {
		r.f = list[0].f
		*parts = nil
	}
	for {
		changed := r.o.Changed()
		ended := r.o.Ended()
		if err := r.catchUp(ctx); err != nil {
			return end(err, flush)
		}
		if err := flush(); err != nil || ended {
			return err
		}
		if err := w.wait(ctx, changed, r.o.Until); err != nil {
			return end(err, flush)
		}
	}
}

// catchUp reads all there is now, in this file and those after it.
func (r *reader) catchUp(ctx context.Context) error {
	for {
		if r.f == nil {
			f, err := os.Open(r.o.Path)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			r.f = f
		}
		n, err := next(r.f, r.o.Path)
		if err != nil {
			return err
		}
		// Read after looking for a successor: then the rotated file is complete.
		if err := r.drain(ctx, r.f, 0); err != nil {
			if n != nil {
				n.Close()
			}
			return err
		}
		if n == nil {
			return nil
		}
		r.f.Close()
		r.f, r.buf, r.over = n, r.buf[:0], false
	}
}

// watcher tells of changes in the log's directory.
type watcher struct {
	f  *os.File
	ch chan struct{}
}

func watch(dir string) *watcher {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return &watcher{} // out of instances: looking every second has to do
	}
	w := &watcher{f: os.NewFile(uintptr(fd), "inotify"), ch: make(chan struct{}, 1)}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		w.f.Close()
		return &watcher{}
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := w.f.Read(buf); err != nil {
				return
			}
			select {
			case w.ch <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *watcher) close() {
	if w.f != nil {
		w.f.Close()
	}
}

// wait returns when something may have changed; errDone when until has passed.
func (w *watcher) wait(ctx context.Context, changed <-chan struct{}, until time.Time) error {
	d := poll
	if !until.IsZero() {
		left := time.Until(until)
		if left <= 0 {
			return errDone
		}
		d = min(d, left)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changed:
	case <-w.ch:
	case <-t.C:
	}
	return nil
}
