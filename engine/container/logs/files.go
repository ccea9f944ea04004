package logs

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// maxFiles bounds how many rotated files are looked for.
const maxFiles = 1000

// part is one file of a log. The caller closes it.
type part struct {
	f    *os.File
	gz   bool
	drop int // lines of a compressed file to pass over
}

// open opens all files of a log, oldest first, the current one last. It tries again
// when a rotation came in between, so that nothing is missing or twice.
func open(path string) ([]part, error) {
	for try := 0; ; try++ {
		parts, err := openOnce(path)
		if err != nil || len(parts) == 0 || try == 10 {
			return parts, err
		}
		last := parts[len(parts)-1].f
		if same(last, path) {
			return parts, nil
		}
		closeAll(parts)
	}
}

func openOnce(path string) ([]part, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parts := []part{{f: f}}
	for i := 1; i < maxFiles; i++ {
		name := path + "." + strconv.Itoa(i)
		p := part{}
		p.f, err = os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			p.gz = true
			p.f, err = os.Open(name + ".gz")
		}
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			closeAll(parts)
			return nil, err
		}
		parts = append([]part{p}, parts...)
	}
	return parts, nil
}

func closeAll(parts []part) {
	for _, p := range parts {
		p.f.Close()
	}
}

// same reports whether path still names the opened file.
func same(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// next finds the file that follows f: f was path once, and has been rotated since. It
// returns nil while f still is the current one.
func next(f *os.File, path string) (*os.File, error) {
	if same(f, path) {
		return nil, nil
	}
	newer := path
	for i := 1; i < maxFiles; i++ {
		name := path + "." + strconv.Itoa(i)
		if same(f, name) {
			break
		}
		if _, err := os.Stat(name); err != nil {
			newer = path // compressed or gone: the current one is the best guess
			break
		}
		newer = name
	}
	n, err := os.Open(newer)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // between two renames
	}
	return n, err
}

// skip positions the files so that n lines are left to read, and returns those that
// have some. It reads from the end; the files before are not touched.
func skip(parts []part, n int) ([]part, error) {
	for i := len(parts) - 1; i >= 0; i-- {
		p := &parts[i]
		if p.gz {
			lines, err := countGz(p.f)
			if err != nil {
				return nil, err
			}
			if lines < n {
				n -= lines
				continue
			}
			p.drop = lines - n
			closeAll(parts[:i])
			return parts[i:], nil
		}
		found, err := seekTail(p.f, n)
		if err != nil {
			return nil, err
		}
		if n -= found; n == 0 {
			closeAll(parts[:i])
			return parts[i:], nil
		}
	}
	return parts, nil
}

// seekTail positions f before its last n lines and returns how many there are, n at most.
func seekTail(f *os.File, n int) (int, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, nil
	}
	buf := make([]byte, 64<<10)
	found := 0
	for pos := end; pos > 0; {
		size := min(pos, int64(len(buf)))
		pos -= size
		b := buf[:size]
		if _, err := f.ReadAt(b, pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		if pos+size == end { // the last newline ends the last line, it starts none
			if b = bytes.TrimSuffix(b, []byte{'\n'}); len(b) == 0 && size == 1 {
				continue
			}
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b, '\n') {
			if found++; found == n {
				_, err := f.Seek(pos+int64(i)+1, io.SeekStart)
				return n, err
			}
			b = b[:i]
		}
	}
	if end > 0 {
		found++ // the first line has no newline before it
	}
	_, err = f.Seek(0, io.SeekStart)
	return found, err
}

// maxUnzipped bounds what one compressed file may unfold to, in bytes.
const maxUnzipped = 4 << 30

func unzip(f *os.File) (io.Reader, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.LimitReader(z, maxUnzipped), nil
}

func countGz(f *os.File) (int, error) {
	z, err := unzip(f)
	if err != nil {
		return 0, torn(err) // it holds nothing to show
	}
	buf := make([]byte, 64<<10)
	lines := 0
	for {
		n, err := z.Read(buf)
		lines += bytes.Count(buf[:n], []byte{'\n'})
		if err != nil {
			return lines, torn(err)
		}
	}
}

// torn is nil for the end of a compressed file, also of one that is damaged or cut off: a
// crash while it was written leaves such, and what came before is good. Other errors are the disk's.
func torn(err error) error {
	var disk *fs.PathError
	if errors.As(err, &disk) {
		return err
	}
	return nil
}
